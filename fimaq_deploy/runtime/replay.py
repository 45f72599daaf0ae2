"""`replay.npz`: a few images of a build with what each way to run the model made of them, to run again elsewhere.

    images                float32 (N, C, H, W) as the model reads them
    rows/ROW/OUTPUT       (N, ...) what that row of the report returned
    head/IMAGE/OUTPUT     of a model with an encoder inside: what its head made of that image's maps
    picture               uint8 (H, W) or (H, W, C): a drawn image, of no data set
    picture_input         float32 (C, H, W) what the builder's preprocessing made of it

The picture tests the preprocessing of another machine, of whose images nothing is known; the images test its engine.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from fimaq_deploy.errors import UserError
from fimaq_deploy.files import write_whole
from fimaq_deploy.manifest import check_file

REPLAY = "replay.npz"

Array: TypeAlias = "NDArray[Any]"

_IMAGES, _PICTURE, _PREPARED, _ROWS = "images", "picture", "picture_input", "rows/"
_HEAD = "head/"


@dataclass(frozen=True, eq=False)
class Replay:
    """See this module's docstring. rows: by row id, then by output. picture, prepared: None for other than images.

    answers: of a head, without masks.
    """

    images: Array
    rows: Mapping[str, Mapping[str, Array]] = field(default_factory=dict)
    picture: Array | None = None
    prepared: Array | None = None
    answers: tuple[Mapping[str, Array], ...] = ()

    def save(self, path: Path) -> None:
        """Write it whole. Raises UserError where it cannot be written."""
        arrays = {f"{_ROWS}{row}/{name}": found for row, named in self.rows.items() for name, found in named.items()}
        arrays |= {f"{_HEAD}{n}/{name}": one for n, named in enumerate(self.answers) for name, one in named.items()}
        picture = {_PICTURE: self.picture, _PREPARED: self.prepared}
        kept = {_IMAGES: self.images, **arrays, **{name: one for name, one in picture.items() if one is not None}}
        data = io.BytesIO()
        np.savez_compressed(data, allow_pickle=False, **kept)
        write_whole(path, data.getbuffer())

    @classmethod
    def load(cls, path: Path) -> Replay:
        """Read what `save` wrote.

        Raises:
            UserError: it is missing, damaged, of something else, or not what its build wrote.
        """
        check_file(path)
        try:
            with np.load(path, allow_pickle=False) as file:
                arrays = {name: file[name] for name in file.files}
            images = arrays.pop(_IMAGES)
        except (OSError, ValueError, KeyError, EOFError, BadZipFile, NotImplementedError) as error:
            raise UserError(f"{path} holds no images to replay ({error}): build again to replace it") from None
        rows, answers = _named(arrays, _ROWS), _named(arrays, _HEAD)
        if any(len(array) != len(images) for named in rows.values() for array in named.values()):
            raise UserError(f"{path} has outputs for another number of images: build again to replace it")
        return cls(images, rows, arrays.get(_PICTURE), arrays.get(_PREPARED), tuple(answers.values()))


def _named(arrays: Mapping[str, Array], prefix: str) -> dict[str, dict[str, Array]]:
    """Those of PREFIX/KEY/NAME by key, then by name, in the file's order."""
    found: dict[str, dict[str, Array]] = {}
    for name, array in arrays.items():
        if name.startswith(prefix):
            key, _, output = name.removeprefix(prefix).partition("/")
            found.setdefault(key, {})[output] = array
    return found


def draw_picture(channels: int, height: int, width: int) -> Array:
    """Waves, edges and noise, larger than (height, width) and of another ratio: uint8 (H, W) or (H, W, 3)."""
    rows, columns = int(1.37 * height) + 3, int(1.61 * width) + 5
    y, x = np.mgrid[0:rows, 0:columns]
    noise = np.random.default_rng(0).integers(-20, 21, (rows, columns, channels))
    waves = np.stack([np.sin(x / (3 + c) + c) + np.cos(y / (5 + c)) for c in range(channels)], axis=-1)
    edges = 60 * ((x // 7 + y // 11) % 2)[..., None]
    pixels = np.clip(np.rint(100 + 40 * waves) + edges + noise, 0, 255).astype(np.uint8)
    return pixels[..., 0] if channels == 1 else pixels
