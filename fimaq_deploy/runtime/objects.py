"""Detectors and segmenters without torch: the encoder in the best engine, its head in ONNX Runtime.

    from fimaq_deploy.runtime.objects import Detector

    for one in Detector("build/x").predict("scene.jpg"):
        print(one.name, one.score, one.box)

Boxes and masks are those of the image as it was given, whatever it was resized to.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from fimaq_deploy.data.places import Place
from fimaq_deploy.errors import UserError, within
from fimaq_deploy.runtime.artifact import Artifact
from fimaq_deploy.runtime.head import Answer, load_head
from fimaq_deploy.runtime.predictor import Array, ImageLike, Predictor


@dataclass(frozen=True)
class Found:
    """An object. box: left, top, right and bottom in pixels of the image. mask: bool (H, W) of the image, or None."""

    label: int
    name: str
    score: float
    box: tuple[float, float, float, float]
    mask: Array | None = field(default=None, repr=False, compare=False)

    def document(self) -> dict[str, Any]:
        """For programs; a mask is its number of pixels."""
        told = {"class": self.label, "name": self.name, "score": self.score, "box": list(self.box)}
        return told if self.mask is None else {**told, "mask_pixels": int(self.mask.sum())}


@dataclass(frozen=True)
class Segments:
    """labels: int16 (H, W) of the image, -1 where the model did not see it. names: of the labels."""

    labels: Array
    names: tuple[str, ...] = ()

    def shares(self) -> dict[str, float]:
        """The share of the image of each class that is in it, the largest first."""
        found = {n: float((self.labels == n).mean()) for n in np.unique(self.labels).tolist() if n >= 0}
        return {named(self.names, n): share for n, share in sorted(found.items(), key=lambda one: -one[1])}


class Headed(Predictor):
    """A predictor with what stands behind its encoder."""

    kinds: tuple[str, ...] = ()
    wanted = ""
    _maps_alone = False

    def __init__(self, artifact: str | Path | Artifact, **options: Any) -> None:
        """As `Predictor`, of the folder of a build.

        Raises:
            UserError: also where the build holds no head, or one of another kind.
        """
        super().__init__(artifact, **options)
        head = self.contract.head
        if head is None or head.kind not in self.kinds:
            has = "no head: its encoder's maps are all that it answers" if head is None else f"a model of {head.kind}"
            raise UserError(f"{self.artifact.path} has {has}; expected {self.wanted}")
        self.head = head
        self._head = load_head(self.artifact, options.get("threads"))

    def answers(self, images: Iterable[ImageLike]) -> Iterator[tuple[Answer, Place]]:
        """The head's answer about each image, in pixels of the input, and where the image lies in that.

        Raises:
            UserError: an image cannot be read.
        """
        left = iter(images)
        while batch := [self._prepare.placed(image) for image in islice(left, self._batch)]:
            maps = self.run(np.stack([prepared for prepared, _ in batch]))
            yield from zip(self._head(maps), (place for _, place in batch), strict=True)


class Detector(Headed):
    """Images to objects."""

    kinds, wanted = ("detection",), "a detector; build again with this version where it was one"

    def predict(self, image: ImageLike, score: float = 0.5) -> list[Found]:
        """The objects of one image, the surest first. score: the least. Raises UserError where it cannot be read."""
        return self.predict_all([image], score)[0]

    def predict_all(self, images: Iterable[ImageLike], score: float = 0.5) -> list[list[Found]]:
        """Of each image. Raises UserError where one cannot be read, or the score is out of range."""
        within("score", score, 0, 1)
        names = self.head.classes
        return [objects_in(answer, place, names, score) for answer, place in self.answers(images)]


class Segmenter(Headed):
    """Images to a class for every pixel."""

    kinds, wanted = ("segmentation", "dense"), "a segmenter; build again with this version where it was one"

    def predict(self, image: ImageLike) -> Segments:
        """Of one image. Raises UserError where it cannot be read, or the model gives no scores of classes."""
        ((answer, place),) = self.answers([image])
        return segments_in(answer, place, self.contract.shape[1:], self.head.classes)


def objects_in(answer: Answer, place: Place, names: tuple[str, ...], least: float = 0.5) -> list[Found]:
    """The objects of a head's answer, the surest first. names: of the labels. least: the score."""
    order = [n for n in np.argsort(-answer["scores"], kind="stable") if answer["scores"][n] >= least]
    boxes, masks = place.boxes(answer["boxes"]), answer.get("masks")
    return [
        Found(
            int(answer["labels"][n]),
            named(names, int(answer["labels"][n])),
            float(answer["scores"][n]),
            tuple(boxes[n].tolist()),
            None if masks is None else place.plane(masks[n]) > 0.5,
        )
        for n in order
    ]


def segments_in(answer: Answer, place: Place, size: tuple[int, int], names: tuple[str, ...]) -> Segments:
    """The class of each pixel by a head's answer. size: (height, width) of the model's input.

    Raises:
        UserError: it gives no scores of classes.
    """
    scores = next(iter(answer.values()))
    if scores.ndim != 3:
        raise UserError(f"the model answers {scores.shape} of an image: expected scores (classes, H, W)")
    return Segments(_best(_enlarged(scores, size), place), names)


def named(names: tuple[str, ...], label: int) -> str:
    return names[label] if 0 <= label < len(names) else str(label)


def _enlarged(scores: Array, size: tuple[int, int]) -> Array:
    """Scores of a coarser grid than the input's at every pixel of the input."""
    height, width = scores.shape[1:]
    if (height, width) == size:
        return scores
    coarse = Place(size, (width / size[1], height / size[0]), (0.0, 0.0))
    return np.stack([coarse.plane(one) for one in scores])


def _best(scores: Array, place: Place) -> Array:
    """Class by class, so that no more than two planes of the image are held."""
    lowest = -np.inf
    best = np.full(place.size, lowest, np.float32)
    labels = np.full(place.size, -1, np.int16)
    for number, one in enumerate(scores):
        plane = place.plane(one, lowest)
        better = plane > best
        best[better], labels[better] = plane[better], number
    return labels
