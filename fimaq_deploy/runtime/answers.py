"""Images to answers in one call: what `fimaq-deploy predict` prints."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fimaq_deploy.data.listing import image_files
from fimaq_deploy.errors import UserError, shown
from fimaq_deploy.files.whole import is_file
from fimaq_deploy.runtime.artifact import open_artifact
from fimaq_deploy.runtime.choose import Choice
from fimaq_deploy.runtime.objects import Detector, Found, Segmenter
from fimaq_deploy.runtime.predictor import Array, Prediction, Predictor, ranked


@dataclass(frozen=True)
class Answer:
    """Of one image: classes, best first, the objects in it, the share of each class, or every output as it is."""

    image: Path
    prediction: Prediction | None
    outputs: dict[str, Array]
    objects: tuple[Found, ...] | None = None
    shares: dict[str, float] | None = None

    def document(self) -> dict[str, Any]:
        if self.objects is not None:
            return {"image": str(self.image), "objects": [one.document() for one in self.objects]}
        if self.shares is not None:
            return {"image": str(self.image), "shares": self.shares}
        if self.prediction is None:
            return {"image": str(self.image), "outputs": {name: one.tolist() for name, one in self.outputs.items()}}
        best = [{"class": number, "name": name, "probability": p} for number, name, p in self.prediction.top]
        return {"image": str(self.image), "top": best}


@dataclass(frozen=True)
class Answers:
    """One an image, in their order."""

    model: str
    choice: Choice
    answers: tuple[Answer, ...]

    def document(self) -> dict[str, Any]:
        """For programs."""
        engine = {"target": self.choice.runtime.name, "file": self.choice.file.name, "why": self.choice.why}
        return {
            "schema": "fimaq-deploy/predict/1",
            "model": self.model,
            "engine": {**engine, "passed_over": list(self.choice.passed_over)},
            "images": [one.document() for one in self.answers],
        }


def predict(
    artifact: str | Path,
    images: str | Path | Sequence[str | Path],
    *,
    target: str | None = None,
    threads: int | None = None,
    top: int = 5,
    score: float | None = None,
) -> Answers:
    """What a build says of image files, or of all in a folder.

    artifact: the folder of a build, or an exported ONNX file. target: None takes the best that runs here. top: how many
    classes; a model without classes gives its outputs as they are. score: the least of a detector's objects; None is
    0.5.

    Raises:
        UserError: no artifact, nothing in it that runs here, or an image that cannot be read.
    """
    files = [file for one in ([images] if isinstance(images, (str, Path)) else images) for file in _files(Path(one))]
    opened = open_artifact(artifact)
    head = opened.contract.head
    if head is not None and head.kind in Detector.kinds:
        return _objects(Detector(opened, target=target, threads=threads), files, 0.5 if score is None else score)
    if score is not None:
        raise UserError(
            f"score {score:g}: {shown(str(opened.path))} is no detector, whose objects have one: leave it out"
        )
    if head is not None and head.kind in Segmenter.kinds:
        return _shares(Segmenter(opened, target=target, threads=threads), files)
    predictor = Predictor(opened, target=target, threads=threads)
    classes = any(one.kind in ("classes", "") and len(one.shape) == 1 for one in predictor.contract.outputs[:1])
    outputs = predictor.outputs(files)
    first = next(iter(outputs))
    best = ranked(predictor.contract, outputs[first], top) if classes else [None] * len(files)
    rows = [{name: np.asarray(one[row]) for name, one in outputs.items()} for row in range(len(files))]
    answers = (Answer(*one) for one in zip(files, best, rows, strict=True))
    return Answers(predictor.artifact.name, predictor.choice, tuple(answers))


def _objects(detector: Detector, files: list[Path], score: float) -> Answers:
    found = zip(files, detector.predict_all(files, score), strict=True)
    answers = tuple(Answer(file, None, {}, objects=tuple(objects)) for file, objects in found)
    return Answers(detector.artifact.name, detector.choice, answers)


def _shares(segmenter: Segmenter, files: list[Path]) -> Answers:
    answers = tuple(Answer(file, None, {}, shares=segmenter.predict(file).shares()) for file in files)
    return Answers(segmenter.artifact.name, segmenter.choice, answers)


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        if os.path.lexists(path) and not is_file(path):
            raise UserError(f"image {shown(str(path))}: expected a file, not a pipe, a device or a link to nothing")
        return [path]
    found = image_files(path).files
    if not found:
        raise UserError(f"no image in {shown(str(path))}: expected files that Pillow opens")
    return found
