"""Which class a folder of images belongs to.

In this order: a class map that the user gives; the model's own names of its classes, where every folder has one of
them; ImageNet's list, where every folder is one of its synsets and the model has as many classes as a list of them;
else the folder's rank in natural order (0, 1, 2, 10), as timm has it, which is text order where numbers are padded.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fimaq_deploy.errors import UserError, shown
from fimaq_deploy.files.reading import read_text
from fimaq_deploy.models.describe import ModelInfo
from fimaq_deploy.models.paths import kind_of

ClassMap = Mapping[str, int]

_SYNSET = re.compile(r"n\d{8}")
_KINDS = "a text file with a class name a line, or a JSON object from names to numbers"


@dataclass(frozen=True)
class Labels:
    """The class of each folder, and what a report should say about how it was found.

    of: by folder name; a folder without a class is not in it.
    """

    of: dict[str, int]
    notes: tuple[str, ...] = ()


def read_class_map(path: str | Path, root: Path | None = None) -> dict[str, int]:
    """Folder names and their classes. root: where the file is looked for too, as timm does.

    Text: a name a line, in the order of the classes; of lines that begin with an ImageNet synset, that is the name.
    JSON: an object from names to numbers or from numbers to names, or a list of names.

    Raises:
        UserError: no such file, another kind, or a class or a name that stands in it twice.
    """
    file = Path(path)
    if kind_of(file) is None and root is not None and kind_of(root / file) == "file":
        file = root / file
    if kind_of(file) != "file":
        raise UserError(f"no class map {shown(str(path))}: expected {_KINDS}")
    try:
        text = read_text(file, "class map", wanted=_KINDS)
        found = _from_json(json.loads(text)) if file.suffix.lower() == ".json" else _from_lines(text.splitlines())
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"class map {file} cannot be read ({shown(str(error))}): expected {_KINDS}") from None
    if not found:
        raise UserError(f"class map {file} is empty: expected {_KINDS}")
    return found


def find_labels(folders: Sequence[str], info: ModelInfo, class_map: ClassMap | None = None) -> Labels:
    """The class of each folder.

    Raises:
        UserError: no folder is in the map, a class is not one of the model's, or there are more folders than classes.
    """
    if class_map is not None:
        return _mapped(folders, class_map, info)
    known = _by_name(folders, info) or _by_synset(folders, info)
    if known:
        return known
    _require_room(folders, info)
    return Labels({name: rank for rank, name in enumerate(natural(folders))}, tuple(_doubts(folders, info)))


def natural(names: Iterable[str]) -> list[str]:
    """Sorted with numbers by their value, whatever the case, as timm does; equal ones by their text."""
    return sorted(names, key=lambda name: (_natural_key(name), name))


def _natural_key(name: str) -> list[tuple[int, int, str]]:
    parts = re.split(r"([0-9]+)", name.lower())
    return [(0, int(part[:4000]), "") if index % 2 else (1, 0, part) for index, part in enumerate(parts) if part]


def _mapped(folders: Sequence[str], class_map: ClassMap, info: ModelInfo) -> Labels:
    found = {name: class_map[name] for name in folders if name in class_map}
    others = [name for name in folders if name not in class_map]
    if not found:
        raise UserError(
            f"the class map has none of the {len(folders)} class folders (such as {shown(folders[0])}); it names "
            f"{shown(next(iter(class_map)))} and others"
        )
    wrong = {name: label for name, label in found.items() if not 0 <= label < info.classes}
    if wrong:
        name, label = next(iter(wrong.items()))
        raise UserError(f"the class map gives {shown(name)} the class {label}: the model has {info.classes}, from 0")
    return Labels(found, (*_not_mapped(others), *_missing(found, info)))


def _not_mapped(names: Sequence[str]) -> list[str]:
    return (
        [f"class folders left out, as the class map lacks them: {len(names)} (first {shown(names[0])})"]
        if names
        else []
    )


def _by_name(folders: Sequence[str], info: ModelInfo) -> Labels | None:
    """By the names that the model itself has for its classes."""
    numbers = {_plain(name): label for label, name in enumerate(info.class_names)}
    if len(numbers) != len(info.class_names) or any(_plain(name) not in numbers for name in folders):
        return None
    found = {name: numbers[_plain(name)] for name in folders}
    return Labels(found, ("class folders have the classes that the model names so", *_missing(found, info)))


def _plain(name: str) -> str:
    return " ".join(re.split(r"[\s_-]+", name.casefold().strip()))


def _by_synset(folders: Sequence[str], info: ModelInfo) -> Labels | None:
    if not all(_SYNSET.fullmatch(name) for name in folders):
        return None
    from timm.data import ImageNetInfo, infer_imagenet_subset

    subset = infer_imagenet_subset({"num_classes": info.classes})
    numbers = {name: label for label, name in enumerate(ImageNetInfo(subset).label_names())} if subset else {}
    if any(name not in numbers for name in folders):
        return None
    found = {name: numbers[name] for name in folders}
    return Labels(found, (f"class folders are synsets of {subset} and have their classes", *_missing(found, info)))


def _missing(found: ClassMap, info: ModelInfo) -> list[str]:
    present = len(set(found.values()))
    return [f"images of {present} of the model's {info.classes} classes"] if present < info.classes else []


def _require_room(folders: Sequence[str], info: ModelInfo) -> None:
    if len(folders) > info.classes:
        raise UserError(
            f"{len(folders)} class folders, the model has {info.classes} classes: expected one folder a class, or a "
            "class map with --class-map"
        )


def _doubts(folders: Sequence[str], info: ModelInfo) -> Iterable[str]:
    """What may be wrong where a class is no more than a rank."""
    if sorted(folders) != natural(folders):
        yield (
            "class folders have their classes in natural order (0, 1, 2, 10), as timm has it; the text order of "
            "torchvision differs: name the order that the model was trained with by --class-map"
        )
    if len({tuple(_natural_key(name)) for name in folders}) < len(folders):
        yield "class folders of which several differ in case or zeros alone: give their order with --class-map"
    if len(folders) < info.classes:
        yield (
            f"{len(folders)} class folders for {info.classes} classes: their ranks were taken as classes 0 to "
            f"{len(folders) - 1}; give the classes that they are with --class-map"
        )


def _from_lines(lines: Sequence[str]) -> dict[str, int]:
    names = [line.strip() for line in lines]
    heads = [name.split(maxsplit=1)[0] if name else "" for name in names]
    synsets = all(_SYNSET.fullmatch(head) for head in heads if head)
    return _numbered(heads if synsets else names)


def _numbered(names: Iterable[str]) -> dict[str, int]:
    """Names by their position. An empty one keeps its number."""
    found: dict[str, int] = {}
    for number, name in enumerate(names):
        if name in found:
            raise ValueError(f"{name} stands in it twice")
        if name:
            found[name] = number
    return found


def _from_json(content: object) -> dict[str, int]:
    if isinstance(content, list) and all(isinstance(name, str) for name in content):
        return _numbered(content)
    if isinstance(content, dict) and all(_is_number(label) for label in content.values()):
        return {name: int(label) for name, label in content.items()}
    if isinstance(content, dict) and all(isinstance(name, str) and _is_number(key) for key, name in content.items()):
        return _inverted(content)
    raise ValueError("neither names with numbers nor a list of names")


def _inverted(names: Mapping[str, str]) -> dict[str, int]:
    found = {name: int(number) for number, name in names.items()}
    if len(found) < len(names):
        raise ValueError("a name stands in it twice")
    return found


def _is_number(value: object) -> bool:
    text = value if isinstance(value, str) else value if isinstance(value, int) and not isinstance(value, bool) else ""
    return bool(re.fullmatch(r"-?[0-9]{1,9}", str(text)))
