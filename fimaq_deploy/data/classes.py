"""Which files of a folder are images, and which class each belongs to."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fimaq_deploy.errors import UserError
from fimaq_deploy.models.describe import ModelInfo

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif", ".ppm", ".pgm"})


def class_folders(root: Path, info: ModelInfo) -> list[Path]:
    found = sorted(p for p in root.iterdir() if p.is_dir() and not p.name.startswith("."))
    if not found:
        raise UserError(f"evaluation folder {root} has no class sub-folders: expected one folder of images per class")
    if len(found) > info.classes:
        raise UserError(
            f"evaluation folder {root} has {len(found)} class folders, the model {info.classes} classes: "
            "expected one folder per class of the model"
        )
    return found


def labelled_files(classes: Sequence[Path]) -> tuple[list[Path], list[int]]:
    pairs = [(file, label) for label, folder in enumerate(classes) for file in image_files(folder)]
    return [file for file, _ in pairs], [label for _, label in pairs]


def image_files(folder: Path) -> list[Path]:
    """Image files at any depth, in an order that does not depend on the file system. Hidden ones are left out."""
    found = (p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
    inside = ((p.relative_to(folder), p) for p in found)
    return [p for inner, p in sorted(inside) if not any(part.startswith(".") for part in inner.parts)]
