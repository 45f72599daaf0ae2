"""Files of arrays as images: `.npy`, `.npz` and `.safetensors`, read without running code.

A `.npy` file is mapped, so only the images that are read take memory.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.npyio import NpzFile
from numpy.typing import NDArray
from torch import Tensor

from fimaq_deploy.data.items import as_labels, split
from fimaq_deploy.data.memory import Arrays
from fimaq_deploy.data.pixels import Pixels
from fimaq_deploy.data.source import drawn
from fimaq_deploy.errors import UserError

SUFFIXES = (".npy", ".npz", ".safetensors")


def array_file(path: Path, pixels: Pixels, *, limit: int | None, seed: int, keep_labels: bool) -> Arrays:
    """The images of a file, and its labels where it has some: `images` and `labels`, or what data sets call them.

    limit: draw that many, by `seed`.

    Raises:
        UserError: the file cannot be read, or holds no images.
    """
    images, labels = split(_READERS[path.suffix.lower()](path), str(path))
    if not hasattr(images, "ndim") or images.ndim < 3:
        raise UserError(f"{path} holds no images: expected an array (N, C, H, W)")
    truth = as_labels(labels, len(images), f"{path}: labels") if keep_labels else None
    order = None if limit is None or limit >= len(images) else drawn(len(images), limit, seed)
    return Arrays(images, truth, pixels, f"file {path}", order)


_UNREADABLE = (OSError, ValueError, EOFError, SyntaxError, AttributeError, KeyError, zipfile.BadZipFile, zlib.error)


def _read_numpy(path: Path) -> Any:
    """An array, or a mapping of arrays, whatever the file is called."""
    try:
        found = np.load(path, mmap_mode="r", allow_pickle=False)
        return {name: found[name] for name in found.files} if isinstance(found, NpzFile) else found
    except _UNREADABLE as error:
        raise _unreadable(path, error) from error


def _read_safetensors(path: Path) -> Any:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return {name: _as_numpy(one) for name, one in load_file(path).items()}
    except (SafetensorError, OSError, TypeError) as error:
        raise _unreadable(path, error) from error


def _as_numpy(tensor: Tensor) -> NDArray[Any]:
    """As float32 where NumPy lacks the type."""
    found: NDArray[Any] = (tensor.float() if tensor.is_floating_point() else tensor).numpy()
    return found


_READERS: dict[str, Callable[[Path], Any]] = {
    ".npy": _read_numpy,
    ".npz": _read_numpy,
    ".safetensors": _read_safetensors,
}


def _unreadable(path: Path, error: Exception) -> UserError:
    reason = " ".join(str(error).split())[:100] or type(error).__name__
    return UserError(f"{path} cannot be read as arrays ({reason}): save it again, without Python objects in it")
