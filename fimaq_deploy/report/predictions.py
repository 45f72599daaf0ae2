"""`predictions.safetensors`: what every row of a report did with each image, to compare builds image by image.

Keys of tensors, with the fingerprints of the images and of their labels in the metadata:

    ROW                              int32 (images,) the class, -1 where a logit is not finite; where there are classes
    labels                           where the images have them, as numbers; not of objects and maps
    images/ROW/OUTPUT/FIGURE         float32 (images,) a figure that is a mean over images
    resamples/ROW/OUTPUT/FIGURE      float32 (resamples,) any other figure, on resamples of the images that are the same
                                     in every build
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from fimaq_deploy.errors import UserError
from fimaq_deploy.files import written_whole
from fimaq_deploy.manifest import check_file

PREDICTIONS = "predictions.safetensors"
_LABELS, _FINGERPRINT, _TRUTH = "labels", "images", "truth"
_MEANS, _RESAMPLES = "images/", "resamples/"

Integers: TypeAlias = "NDArray[np.int32]"
Floats: TypeAlias = "NDArray[np.float32]"


class Key(NamedTuple):
    """Which figure of which output of which row. Only the output's name may hold a slash."""

    row: str
    output: str
    figure: str

    @classmethod
    def read(cls, text: str) -> Key:
        row, _, rest = text.partition("/")
        output, _, figure = rest.rpartition("/")
        return cls(row, output, figure)

    def __str__(self) -> str:
        return f"{self.row}/{self.output}/{self.figure}"


@dataclass(frozen=True, eq=False)
class Predictions:
    """What the rows did with each image.

    images: the fingerprint of the images, in their order. rows: the class of each image, by row id.
    labels: None where they have none, or more than numbers. means, resamples: see this module's docstring.
    truth: the fingerprint of whatever labels they have; empty where they have none.
    """

    images: str
    rows: Mapping[str, Integers] = field(default_factory=dict)
    labels: NDArray[Any] | None = None
    means: Mapping[Key, Floats] = field(default_factory=dict)
    resamples: Mapping[Key, Floats] = field(default_factory=dict)
    truth: str = ""

    def save(self, path: Path) -> None:
        labels = {} if self.labels is None else {_LABELS: np.ascontiguousarray(self.labels)}
        tensors = {name: np.ascontiguousarray(found, np.int32) for name, found in self.rows.items()}
        figures = {
            f"{prefix}{key}": np.ascontiguousarray(found, np.float32)
            for prefix, group in ((_MEANS, self.means), (_RESAMPLES, self.resamples))
            for key, found in group.items()
        }
        with written_whole(path) as beside:
            save_file(
                {**tensors, **labels, **figures}, beside, metadata={_FINGERPRINT: self.images, _TRUTH: self.truth}
            )

    @classmethod
    def load(cls, path: Path) -> Predictions:
        """Read what `save` wrote, in this version or an earlier one.

        Raises:
            UserError: the file is missing, cut off, of something else, or not what its build wrote.
        """
        check_file(path)
        try:
            with safe_open(path, framework="numpy") as file:
                images, truth = ((file.metadata() or {}).get(name, "") for name in (_FINGERPRINT, _TRUTH))
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except (OSError, SafetensorError) as error:
            raise UserError(f"cannot read {path}: {error}; build again to replace it") from error
        means, resamples = _under(tensors, _MEANS), _under(tensors, _RESAMPLES)
        labels = tensors.pop(_LABELS, None)
        whole = len({len(found) for found in tensors.values()} | ({len(labels)} if labels is not None else set())) <= 1
        if not images or not (tensors or means or resamples) or not whole:
            raise UserError(f"{path} holds no predictions of a build: build again to replace it")
        return cls(images, tensors, labels, means, resamples, truth)


class Fingerprint:
    """The SHA-256 of images as the model reads them, however they are batched. Other preprocessing is other images."""

    def __init__(self) -> None:
        self._digest = hashlib.sha256()

    def add(self, images: NDArray[np.float32]) -> None:
        self._digest.update(np.ascontiguousarray(images).data)

    def __str__(self) -> str:
        return self._digest.hexdigest()


class LabelFingerprint:
    """The SHA-256 of what images are labelled with: classes, objects or maps, however they are batched."""

    def __init__(self) -> None:
        self._digest, self._any = hashlib.sha256(), False

    def add(self, labels: NDArray[Any] | None) -> None:
        for one in () if labels is None else np.ascontiguousarray(labels):
            self._any = True
            self._digest.update(f"{one.dtype.kind}{one.shape}".encode())
            self._digest.update(np.asarray(one, np.float64 if one.dtype.kind == "f" else np.int64).tobytes())

    def __str__(self) -> str:
        return self._digest.hexdigest() if self._any else ""


def _under(tensors: dict[str, Any], prefix: str) -> dict[Key, Floats]:
    """The tensors whose names begin so, taken out of the others."""
    names = [name for name in tensors if name.startswith(prefix)]
    return {Key.read(name.removeprefix(prefix)): tensors.pop(name) for name in names}
