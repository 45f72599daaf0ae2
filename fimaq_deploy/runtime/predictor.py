"""A build as a function from images to answers.

    from fimaq_deploy.runtime.predictor import Classifier

    classifier = Classifier("build/x")
    print(classifier.predict("cat.jpg").name)

A predictor may be called from several threads where its engine may: ONNX Runtime. Detectors and segmenters
are in `runtime.objects`; of any other model `Predictor.outputs` returns the answers as they are.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fimaq_deploy.contract import Contract
from fimaq_deploy.errors import UserError, within
from fimaq_deploy.runtime.artifact import Artifact, open_artifact
from fimaq_deploy.runtime.choose import choose_engine
from fimaq_deploy.runtime.preprocessing import Preparation

Array: TypeAlias = "NDArray[Any]"
ImageLike: TypeAlias = "str | Path | Image.Image | NDArray[np.uint8]"

_BATCH = 16
_LARGEST_BATCH = 4096


def _require_images(artifact: Artifact) -> None:
    """Refuse a file that reads what a model makes of images, and not images.

    Raises:
        UserError: says how it is run instead.
    """
    contract = artifact.contract
    if contract.part and not contract.direct:
        raise UserError(
            f"{artifact.path} is the encoder '{contract.part}' of a model, which prepares its images: put its engine "
            "into that model, with fimaq_deploy.splice(model, fimaq_deploy.load_engine(FILE))"
        )


class Predictor:
    """Images to outputs, whatever they are.

    contract: what the file reads. choice: which engine runs it, and why. notes: what a log should say.
    """

    _maps_alone = True  # of an encoder inside of a model

    def __init__(
        self,
        artifact: str | Path | Artifact,
        *,
        target: str | None = None,
        threads: int | None = None,
        batch: int = _BATCH,
    ) -> None:
        """artifact: the folder of a build, or an exported ONNX file. target: None takes the best that runs here.

        threads: of a CPU; None is the engine's own choice. batch: the most images at once.

        Raises:
            UserError: no artifact, nothing in it that runs here, or a number out of range.
        """
        self._batch = int(within("batch", batch, 1, _LARGEST_BATCH))
        self.artifact = open_artifact(artifact)
        _require_images(self.artifact)
        self.choice = choose_engine(self.artifact, target, threads)
        self.contract: Contract = self.artifact.contract
        if self.contract.resizing is not None:
            self._batch = 1  # of images of any size
        self._prepare = Preparation(self.contract)

    @property
    def notes(self) -> tuple[str, ...]:
        part = self.artifact.contract.part
        told = (f"it is the encoder '{part}' of a model and answers its maps",) if part and self._maps_alone else ()
        return (self.choice.sentence, *told)

    def warm_up(self, batches: Sequence[int] = (1,)) -> None:
        """Run black images of these batch sizes, so that the first real ones do not wait for what is made lazily."""
        for size in batches:
            height, width = self.contract.resize
            sides = [side or free for side, free in zip(self.contract.input_shape[1:], (height, width, 0), strict=True)]
            self.run(np.zeros((size, *sides), self._dtype))

    def prepare(self, images: Iterable[ImageLike]) -> Array:
        """Images as one batch that the file reads: float32 (N, C, H, W), or uint8 (N, H, W, C) by the contract.

        Raises:
            UserError: no image, or one that cannot be read.
        """
        found = [self._prepare(image) for image in images]
        if not found:
            raise UserError("no images: give at least one")
        if len({one.shape for one in found}) > 1:
            raise UserError("images of several sizes are no batch of a file that resizes them: give one at a time")
        return np.stack(found)

    def run(self, batch: Array) -> dict[str, Array]:
        """Every output by its name, of a prepared batch.

        Raises:
            UserError: it is not of the contract's type and shape.
        """
        return self.choice.runner.outputs(batch)

    def outputs(self, images: ImageLike | Iterable[ImageLike]) -> dict[str, Array]:
        """Every output by its name, (N, ...), of any number of images.

        Raises:
            UserError: no image, or one that cannot be read.
        """
        parts = [self.run(batch) for batch in self._batches(_several(images))]
        if not parts:
            raise UserError("no images: give at least one")
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def _batches(self, images: Iterable[ImageLike]) -> Iterator[Array]:
        left = iter(images)
        while taken := list(islice(left, self._batch)):
            yield self.prepare(taken)

    @property
    def _dtype(self) -> type:
        return np.uint8 if self.contract.pixels else np.float32

    def _main(self, kinds: Sequence[str], wanted: str) -> str:
        """The name of the first output of these kinds; a file that nobody measured says none, and is believed."""
        for output in self.contract.outputs:
            if output.kind in kinds or not output.kind:
                return output.name
        found = ", ".join(f"{one.name} ({one.kind})" for one in self.contract.outputs)
        message = f"{self.artifact.path} returns {found}: expected {wanted}; Predictor gives outputs as they are"
        raise UserError(message)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.artifact.name}, {self.choice.runtime.name})"


@dataclass(frozen=True)
class Prediction:
    """The best classes of one image, best first, as (number, name, probability). name: the number where nobody said."""

    top: tuple[tuple[int, str, float], ...]

    @property
    def label(self) -> int:
        return self.top[0][0]

    @property
    def name(self) -> str:
        return self.top[0][1]

    @property
    def probability(self) -> float:
        return self.top[0][2]


class Classifier(Predictor):
    """Images to classes."""

    def __init__(self, artifact: str | Path | Artifact, **options: Any) -> None:
        """As `Predictor`. Raises UserError also where the model has no classes."""
        super().__init__(artifact, **options)
        self._output = self._main(("classes",), "classes")

    def predict(self, image: ImageLike, top: int = 5) -> Prediction:
        """Of one image. Raises UserError where it cannot be read."""
        return self.predict_all([image], top)[0]

    def predict_all(self, images: Iterable[ImageLike], top: int = 5) -> list[Prediction]:
        """Of each image, in batches. Raises UserError where one cannot be read."""
        return ranked(self.contract, self.outputs(images)[self._output], top)


class Encoder(Predictor):
    """Images to embeddings."""

    def __init__(self, artifact: str | Path | Artifact, **options: Any) -> None:
        """As `Predictor`. Raises UserError also where the model has classes alone."""
        super().__init__(artifact, **options)
        self._output = self._main(("embedding",), "an embedding")

    def encode(self, images: ImageLike | Iterable[ImageLike], *, normalise: bool = True) -> Array:
        """float32 (N, width). normalise: to length 1, so that a product of two is their cosine.

        Raises:
            UserError: an image cannot be read.
        """
        found = self.outputs(images)[self._output]
        norms = np.maximum(np.linalg.norm(found, axis=-1, keepdims=True), np.float32(1e-12))
        return found / norms if normalise else found


def ranked(contract: Contract, logits: Array, top: int = 5) -> list[Prediction]:
    """Logits (N, classes) as predictions, the first of equal ones first.

    Raises:
        UserError: they have another shape, or `top` is not positive.
    """
    within("top", top, 1, 1_000_000)
    if logits.ndim != 2:
        raise UserError(f"an output has shape {logits.shape}: expected logits (N, classes)")
    names, order = contract.classes, np.argsort(-logits, axis=1, kind="stable")[:, :top]
    return [
        Prediction(tuple((n, names[n] if n < len(names) else str(n), float(share[n])) for n in map(int, best)))
        for best, share in zip(order, softmax(logits), strict=True)
    ]


def softmax(logits: Array) -> Array:
    """Over the last axis, in float64."""
    shifted = np.exp(logits.astype(np.float64) - logits.max(axis=-1, keepdims=True))
    return shifted / shifted.sum(axis=-1, keepdims=True)


def _several(images: ImageLike | Iterable[ImageLike]) -> Iterable[ImageLike]:
    one = isinstance(images, (str, Path, Image.Image)) or (isinstance(images, np.ndarray) and images.ndim < 4)
    return [images] if one else images  # type: ignore[list-item, return-value]
