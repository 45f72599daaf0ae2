"""`predictions.safetensors`: what every row of a report predicted for each image, to compare builds image by image.

int32 tensors (images,): one a row, under its id, with -1 where a logit was not finite, and `labels` where the images
have classes. The metadata holds the fingerprint of the images.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from fimaq_deploy.errors import UserError
from fimaq_deploy.files import written_whole
from fimaq_deploy.manifest import check_file

PREDICTIONS = "predictions.safetensors"
_LABELS, _IMAGES = "labels", "images"

Integers = NDArray[np.int32]


@dataclass(frozen=True, eq=False)
class Predictions:
    """The top-1 class of each image, by row id.

    images: the fingerprint of the images, in their order.
    labels: None where they have no classes.
    """

    images: str
    rows: Mapping[str, Integers]
    labels: Integers | None = None

    def save(self, path: Path) -> None:
        labels = {} if self.labels is None else {_LABELS: self.labels}
        tensors = {name: np.ascontiguousarray(found, np.int32) for name, found in {**self.rows, **labels}.items()}
        with written_whole(path) as beside:
            save_file(tensors, beside, metadata={_IMAGES: self.images})

    @classmethod
    def load(cls, path: Path) -> Predictions:
        """Read what `save` wrote.

        Raises:
            UserError: the file is missing, cut off, of something else, or not what its build wrote.
        """
        check_file(path)
        try:
            with safe_open(path, framework="numpy") as file:
                images = (file.metadata() or {}).get(_IMAGES)
                rows = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except (OSError, SafetensorError) as error:
            raise UserError(f"cannot read {path}: {error}; build again to replace it") from error
        if not images or len({found.shape for found in rows.values()}) != 1:
            raise UserError(f"{path} holds no predictions of a build: build again to replace it")
        return cls(images, rows, rows.pop(_LABELS, None))


def fingerprint(batches: Iterable[NDArray[np.float32]]) -> str:
    """The SHA-256 of images as the model reads them, however they are batched. Other preprocessing is other images."""
    digest = hashlib.sha256()
    for images in batches:
        digest.update(np.ascontiguousarray(images))
    return digest.hexdigest()
