"""Checkpoint files and folders, read without running code.

A torch file may name any class: of those that torch does not allow, an inert stand-in is made, which keeps the state
that the file has for it and does nothing. So weights are found beside training arguments, NumPy scalars and whole
pickled modules, and no code but torch's own is run.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fimaq_deploy.errors import UserError, shown
from fimaq_deploy.files.whole import is_file
from fimaq_deploy.models.paths import kind_of

if TYPE_CHECKING:
    from torch import Tensor

State = dict[str, "Tensor"]

# A folder's files in the order in which they are looked for, as transformers and timm write them.
_IN_A_FOLDER = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
    "open_clip_model.safetensors",
)
_KINDS = "a .safetensors file, a file that torch saved (.pth, .pt, .bin, .ckpt, ...), or a folder with one of them"
_SHOWN_CLASSES = 3


class Inert(list[Any]):
    """What stands for an object of a class that is not loaded. It keeps the state that its file has for it."""

    def __init__(self, *_: Any, **__: Any) -> None:
        super().__init__()

    def __setstate__(self, state: Any) -> None:
        for part in state if isinstance(state, tuple) else (state,):
            if isinstance(part, dict):
                self.__dict__.update({str(key): value for key, value in part.items()})


def split_choice(weights: str | Path) -> tuple[Path, str | None]:
    """A path, and which of the sets of weights in the file is meant: `file.pth#state_dict_ema`."""
    text = str(weights)
    if not text:
        raise UserError(f"no checkpoint '': expected 'pretrained', 'random' or the path of {_KINDS}")
    path, mark, choice = text.rpartition("#")
    if not mark or not path or kind_of(text) is not None:
        return Path(text), None
    return Path(path), choice


def read_checkpoint(path: str | Path) -> Any:
    """What a file or a folder holds: mappings within mappings, and tensors somewhere in them.

    Raises:
        UserError: nothing is there, it is of another kind, corrupt, or cannot be read without running code.
    """
    file = Path(path)
    kind = kind_of(file)
    if kind is None:
        raise UserError(f"no checkpoint '{shown(str(path))}': expected 'pretrained', 'random' or the path of {_KINDS}")
    if kind == "file" and not is_file(file):
        raise UserError(f"checkpoint {shown(str(path))} is a pipe or a device, which cannot be searched: name a file")
    return _read_folder(file) if kind == "folder" else _read_file(file)


def _read_folder(folder: Path) -> Any:
    file = next((folder / name for name in _IN_A_FOLDER if (folder / name).is_file()), None)
    if file is None:
        raise UserError(f"folder {folder} holds no weights: expected one of {', '.join(_IN_A_FOLDER)}")
    return _read_file(file)


def _read_file(file: Path) -> Any:
    if file.name.endswith(".index.json"):
        return _read_shards(file)
    if file.suffix == ".safetensors":
        return _read_safetensors(file)
    return _read_torch(file)


def _read_shards(index: Path) -> State:
    """The tensors of all the files that an index lists."""
    try:
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(f"{index} is no index of weight files ({shown(str(error))}): download it again") from error
    found: State = {}
    for name in names:
        if not isinstance(name, str) or Path(name).name != name:
            raise UserError(f"{index} names the weight file {shown(name)}: expected files beside it")
        found.update(read_checkpoint(index.with_name(name)))
    return found


def _read_safetensors(file: Path) -> State:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(file)
    except (SafetensorError, OSError, ValueError) as error:
        raise UserError(
            f"checkpoint {file} is corrupt or not safetensors ({shown(str(error))}): download or save it again"
        ) from error


def _read_torch(file: Path) -> Any:
    """Other mistakes than these are ours; these are all that torch raises for files that are not its own."""
    from pickle import UnpicklingError

    mistakes = (
        *(UnpicklingError, RuntimeError, EOFError, OSError, ValueError, KeyError, IndexError, AttributeError),
        *(TypeError, UnicodeDecodeError, AssertionError, MemoryError, OverflowError, RecursionError),
    )
    try:
        return _load_torch(file)
    except mistakes as error:
        reason = shown(str(error)) or type(error).__name__
        if "GLOBAL" in str(error) or "Can only" in str(error) or _foreign(file):
            raise UserError(
                f"checkpoint {file} holds Python objects ({_classes_in(file)}) in a form that cannot be read without "
                "running their code: save model.state_dict() alone"
            ) from error
        raise UserError(f"checkpoint {file} is corrupt or no torch file ({reason}): expected {_KINDS}") from error


def _load_torch(file: Path) -> Any:
    import torch

    stand_ins: list[Any] = [(_STAND_INS.get(name, Inert), name) for name in _foreign(file)]
    with torch.serialization.safe_globals(stand_ins), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of pickle protocols, which the error that may follow names too
        return torch.load(file, map_location="cpu", weights_only=True)


def _plain_mapping(*_: Any) -> dict[Any, Any]:
    return {}


_STAND_INS: dict[str, Any] = {"collections.defaultdict": _plain_mapping}


def _foreign(file: Path) -> list[str]:
    """Classes and functions that a torch file names and torch does not allow; none where only torch can tell."""
    import torch

    try:
        return sorted(torch.serialization.get_unsafe_globals_in_checkpoint(file))
    except Exception:  # files of another format break this anywhere; reading them says what is wrong
        return []


def _classes_in(file: Path) -> str:
    names = _foreign(file)
    return ", ".join(names[:_SHOWN_CLASSES]) + (", ..." if len(names) > _SHOWN_CLASSES else "") or "of unknown classes"


def tensors(content: Any) -> Iterator[tuple[tuple[str, ...], Tensor]]:
    """Every tensor of a checkpoint with the path of names that leads to it; what holds itself is entered once."""
    from torch import Tensor

    waiting: list[tuple[tuple[str, ...], Any]] = [((), content)]
    seen: set[int] = set()
    while waiting:
        path, value = waiting.pop()
        if isinstance(value, Tensor):
            yield path, value
        elif id(value) not in seen:
            seen.add(id(value))
            waiting += reversed([((*path, name), inner) for name, inner in _parts(value)])


def _parts(value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        yield from ((str(name), inner) for name, inner in value.items())
        return
    if isinstance(value, (list, tuple)):
        yield from ((str(number), inner) for number, inner in enumerate(value))
    if isinstance(value, Inert):
        yield from vars(value).items()
