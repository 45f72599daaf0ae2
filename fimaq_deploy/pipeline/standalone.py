"""The whole model of a build as it is run without torch: its encoder's file and, behind it, the head's in ONNX Runtime.

That is what `Detector` and `Segmenter` run, and what `package --format whole` joins into one file. Other rows of a
report run the rest in torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fimaq_deploy.engines.runner import Runner
from fimaq_deploy.engines.runtimes import REFERENCE
from fimaq_deploy.models.detectors import is_detection
from fimaq_deploy.pipeline.heads import Written
from fimaq_deploy.pipeline.normalisation import Normalisation
from fimaq_deploy.pipeline.rows import Candidate
from fimaq_deploy.pipeline.speed import Speed, measure_latency
from fimaq_deploy.pipeline.variants import FP_ROW, LoadedFile
from fimaq_deploy.pipeline.whole import Whole
from fimaq_deploy.runtime.head import Answer, HeadRunner, is_about_objects

FP_WHOLE, WHOLE = "whole-onnx-fp32", "whole-onnx"
_MASK = 0.5  # from which probability on a pixel is of the object

Array = NDArray[Any]


@dataclass(frozen=True)
class Standalone:
    """Rows of a report, the original first; none where there is no head. runners: by row."""

    candidates: tuple[Candidate, ...] = ()
    runners: dict[str, Runner] = field(default_factory=dict)

    def speed(self) -> dict[str, Speed]:
        """Of one image at a time, in turns."""
        return measure_latency(self.runners, batch_sizes=[1]) if self.runners else {}


def standalone(
    folder: Path,
    whole: Whole,
    written: Written,
    loaded: Sequence[LoadedFile],
    image: Tensor,
    reads: Normalisation | None = None,
) -> Standalone:
    """Encoders in ONNX Runtime with the build's head behind each.

    image: one of the whole model's, (1, C, H, W), which tells how many objects the model has places for. reads: what
        is done to it on its way to the encoder, which the encoder's own contract says to a runtime.
    """
    if written.facts is None:
        return Standalone()
    path = folder / written.facts.file
    head, places = HeadRunner(path), _places(whole, image)
    files = {one.row: one for one in loaded}
    runners = {
        row: _behind(files[encoder].runner, head, places, title, reads)
        for row, encoder, title in ((FP_WHOLE, FP_ROW, "FP32"), (WHOLE, REFERENCE, "quantized"))
    }
    candidates = (
        Candidate(
            FP_WHOLE,
            "Whole in ONNX, FP32",
            runners[FP_WHOLE],
            FP_ROW,
            files[FP_ROW].file,
            original=True,
            behind=path,
        ),
        Candidate(WHOLE, "Whole in ONNX", runners[WHOLE], REFERENCE, files[REFERENCE].file, deployed=True, behind=path),
    )
    return Standalone(candidates, runners)


def _places(whole: Whole, image: Tensor) -> int:
    """How many objects of an image the model answers at most; 0 where it answers something else."""
    with torch.inference_mode():
        answer = whole.original(image)
    return int(answer["boxes"].shape[1]) if is_detection(answer) else 0


def _behind(encoder: Runner, head: HeadRunner, places: int, title: str, reads: Normalisation | None) -> Runner:
    """The encoder with the head behind it, as an engine of its own."""

    def outputs(images: Array) -> dict[str, Array]:
        answers = head(encoder.outputs(images if reads is None else reads(images)))
        if places and is_about_objects(answers[0]):
            answers = [_filled(one, places) for one in answers]
        return {name: np.stack([one[name] for one in answers]) for name in answers[0]}

    def run(images: Array) -> Array:
        return next(iter(outputs(images).values()))

    return Runner(f"the whole model, {title}", encoder.input_shape, run, outputs)


def _filled(answer: Answer, places: int) -> Answer:
    """Objects in as many places as the model has, the surest first; an empty one has the label -1."""
    order = np.argsort(-answer["scores"], kind="stable")[:places]
    found = {name: one[order] for name, one in answer.items()}
    if "masks" in found:
        found["masks"] = found["masks"] > _MASK
    missing = places - len(order)
    return {
        name: np.concatenate([one, np.full((missing, *one.shape[1:]), -1 if name == "labels" else 0, one.dtype)])
        for name, one in found.items()
    }
