"""The model of a build as its user calls it, around the encoder that is quantized, exported and compiled.

Of a classifier that is the same. Of a detector, a segmenter or a depth model every row runs the whole model, with the
encoder's file or engine in the place of its encoder and the rest in floats; what is about one file (parity, audit,
latency, the replay) is about the encoder's, on what it gets there.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from fimaq_deploy.calibration.backbone import encoder_inputs
from fimaq_deploy.data.source import BATCH_SIZE, Batch, ImageSource
from fimaq_deploy.models.describe import ModelInfo
from fimaq_deploy.models.detectors import Arranged
from fimaq_deploy.models.inside import Inside, describe_whole, find_backbone, needs_search, splice
from fimaq_deploy.models.preprocessing import Preprocessing
from fimaq_deploy.pipeline.normalisation import Normalisation, find_normalisation
from fimaq_deploy.pipeline.rows import Candidate

Size = tuple[int, int]


@dataclass(frozen=True, eq=False)
class Whole:
    """A model, and the encoder of it that is quantized: the model itself where `place` is empty."""

    model: nn.Module
    inside: Inside

    @classmethod
    def of(cls, model: nn.Module, backbone: str | None = None) -> Whole:
        """Errors as of `find_backbone`."""
        searched = backbone is not None or needs_search(model)
        return cls(model, find_backbone(model, backbone) if searched else Inside("", model))

    @property
    def place(self) -> str:
        return self.inside.name

    @property
    def encoder(self) -> nn.Module:
        return self.inside.encoder

    @property
    def is_encoder(self) -> bool:
        """Whether nothing is around the encoder."""
        return self.encoder is self.model

    def describe(self, name: str, preprocessing: Preprocessing | None, size: Size | None = None) -> ModelInfo:
        """What the whole model reads. Errors as of `describe_whole`."""
        return describe_whole(self.model, self.inside, name, preprocessing, size)

    @property
    def original(self) -> nn.Module:
        """The model as what is deployed is compared with."""
        return self.inside.family.original(self.encoder) if self.is_encoder else Arranged(self.model)

    @property
    def encoder_original(self) -> nn.Module:
        """The encoder alone, the same way."""
        return self.inside.family.original(self.encoder)

    def around(self, run: Any) -> Any:
        """The whole model with something else in the encoder's place: a module, a runner or a function of arrays."""
        return run if self.is_encoder else Arranged(splice(self.model, run, self.place))

    def candidates(self, encoders: Sequence[Candidate]) -> tuple[Candidate, ...]:
        """The rows of a table: the first one is the original, the others are ways to run the encoder."""
        if self.is_encoder:
            return tuple(encoders)
        first, *others = encoders
        rest = (one if one.run is None else replace(one, run=self.around(one.run)) for one in others)
        return (replace(first, run=self.original), *rest)

    def encoder_images(self, images: ImageSource) -> ImageSource:
        """What the encoder gets of them."""
        return images if self.is_encoder else Reaching(self, images)

    def note(self, file: str, outputs: Sequence[str], direct: bool, alone: Sequence[str] = ()) -> list[str]:
        """What a reader of a report should know. alone: the titles of rows that need no torch."""
        if self.is_encoder:
            return []
        kind = type(self.encoder).__name__
        reads = "" if direct else "; it reads what the model makes of images, not images"
        return [
            f"{file} and every engine are the encoder '{self.place}' ({kind}) of the model, with the outputs "
            f"{', '.join(outputs)}{reads}. Accuracy is that of the whole model, whose rest runs in PyTorch; parity, "
            f"audit, latency and memory are the encoder's{_but(alone)}"
        ]


def _but(alone: Sequence[str]) -> str:
    if not alone:
        return ""
    return f"; '{alone[-1]}' is all of it without PyTorch, encoder and head, with the latency of both"


class Reaching(ImageSource):
    """What an encoder gets of a model's images, without labels."""

    def __init__(self, whole: Whole, images: ImageSource) -> None:
        self._whole, self._images = whole, images

    @property
    def description(self) -> str:
        return self._images.description

    @property
    def count(self) -> int | None:
        return self._images.count

    @property
    def labelled(self) -> bool:
        return False

    @property
    def skipped(self) -> tuple[Path, ...]:
        return self._images.skipped

    def batches(self, size: int = BATCH_SIZE) -> Iterator[Batch]:
        shown = (batch.images for batch in self._images.batches(size))
        for found in encoder_inputs(self._whole.model, self._whole.inside, shown):
            yield Batch(found, None)


def how_read(whole: Whole, images: ImageSource) -> Normalisation | str:
    """What is done to the model's images before its encoder gets them, or why no file that reads images can do it."""
    first: Tensor = images.take(1)
    found = whole.encoder_images(images).take(1)
    reads = find_normalisation(whole.model, first, found)
    if reads is not None:
        return reads
    given, reached = ("×".join(map(str, one.shape[2:])) for one in (first, found))
    if given != reached:
        asked = reached.replace("×", "x")
        return (
            f"the model makes {reached} of images of {given} before its encoder: --image-size {asked} leaves it "
            "nothing to resize, where it has that size itself"
        )
    told = f"the model changes images of {given} before its encoder by more than a mean and a std of each channel"
    if not hasattr(getattr(whole.model, "transform", None), "fixed_size"):
        return told
    height, width = first.shape[2:]
    return f"{told}: torchvision's fixed_size=({width}, {height}) keeps its transform from resizing them"
