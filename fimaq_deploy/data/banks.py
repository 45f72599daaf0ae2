"""A bank: labelled images that an encoder's vectors are judged by. The images to measure on have its classes."""

from __future__ import annotations

from dataclasses import replace
from os import PathLike
from pathlib import Path

from fimaq_deploy.data.choose import kept
from fimaq_deploy.data.class_maps import ClassMap, natural, read_class_map
from fimaq_deploy.data.intake import Images, as_source
from fimaq_deploy.data.label_maps import mapped_images
from fimaq_deploy.data.source import ImageSource
from fimaq_deploy.errors import UserError
from fimaq_deploy.models.describe import ModelInfo
from fimaq_deploy.models.paths import kind_of


def bank_source(
    bank: Images, info: ModelInfo, *, class_map: ClassMap | str | Path | None = None, maps: str | Path | None = None
) -> ImageSource:
    """bank: a folder with a sub-folder per class, or whatever `as_source` takes. maps: of the classes of pixels, in a
    folder.

    Raises:
        UserError: images that are refused, or maps that are not theirs.
    """
    if maps is not None:
        if not isinstance(bank, (str, PathLike)):
            raise UserError("--bank-maps needs the folder of its images: name it with --bank")
        return mapped_images(Path(bank), maps, info)
    said, names = classes_of(bank, info, class_map)
    return kept(as_source(bank, said, class_map=names))


def classes_of(
    bank: Images, info: ModelInfo, class_map: ClassMap | str | Path | None = None
) -> tuple[ModelInfo, ClassMap | str | Path | None]:
    """The model as one that has the bank's classes, and what they are called: an encoder has none of its own.

    Raises:
        UserError: the class map cannot be read.
    """
    root = Path(bank) if isinstance(bank, (str, PathLike)) and kind_of(str(bank)) == "folder" else None
    if root is None:
        return info, class_map
    folders = natural(path.name for path in root.iterdir() if path.is_dir())
    given = read_class_map(class_map, root) if isinstance(class_map, (str, Path)) else class_map
    names = given or {name: number for number, name in enumerate(folders)}
    if not names:
        return info, None
    return replace(info, classes=max(names.values()) + 1, class_names=()), names
