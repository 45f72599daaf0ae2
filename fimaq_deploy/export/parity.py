"""Fake-quant against ONNX, stage by stage: where do they part?

The ONNX file is written once more with every stage's result as an output and runs once. Each torch stage then gets what
the ONNX stage before it produced, so a difference belongs to the stage that made it and does not add up; what adds up
over the whole chain is reported beside it.

Two float programs that sum in another order round a value on the edge between two integers differently now and then,
and that one step then shows in a row of outputs. So a stage parts when more than a share of its elements differ.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fimaq_deploy.engines.onnxruntime import open_session
from fimaq_deploy.engines.runner import Array
from fimaq_deploy.export.inspection import integer_weights
from fimaq_deploy.export.qdq import BOUNDARY, INPUT, OUTPUT, export_onnx

# Elements that differ by more than this share of the output's standard deviation count as differing.
TOLERANCE = 1e-3
# Differing elements that rounding on the edge may explain.
ALLOWED_SHARE = 0.01


@dataclass(frozen=True)
class StageParity:
    """One stage, computed by both from the same input.

    largest_difference: largest absolute difference of two elements.
    relative_difference: the same over the standard deviation of the stage's output.
    differing_share: elements that differ by more than the tolerance, in [0, 1].
    accumulated_share: the same where each side feeds itself from the images on.
    """

    name: str
    largest_difference: float
    relative_difference: float
    differing_share: float
    accumulated_share: float


@dataclass(frozen=True)
class ParityReport:
    """All stages in execution order. `agreement` is the share of images with the same top-1 prediction, in [0, 1]."""

    stages: tuple[StageParity, ...]
    agreement: float
    largest_logit_difference: float
    allowed_share: float = ALLOWED_SHARE

    @property
    def first_parting(self) -> StageParity | None:
        """The first stage beyond the tolerance, None where there is none."""
        return next((stage for stage in self.stages if stage.differing_share > self.allowed_share), None)


@torch.no_grad()
def compare_stages(
    quantized: Any,
    images: Tensor,
    *,
    optimisations: bool = False,
    tolerance: float = TOLERANCE,
    threads: int | None = None,
) -> ParityReport:
    """Compare a frozen quantized model with its float32 ONNX twin in ONNX Runtime.

    images: (N, C, H, W), float32, one batch.
    optimisations: False is the graph as written.
    """
    stages = quantized.stages
    with TemporaryDirectory() as folder:
        path = Path(folder) / "boundaries.onnx"
        export_onnx(quantized, path, input_shape=images.shape[1:], boundaries=True)
        session = open_session(path, optimisations=optimisations, threads=threads)
        names = [*(f"{BOUNDARY}{stage.name}" for stage in stages[:-1]), OUTPUT]
        ours: list[Array] = session.run(names, {INPUT: images.cpu().numpy()})
    own = accumulated = images
    found = []
    for stage, theirs in zip(stages, ours, strict=True):
        from_same, accumulated = stage.module(own), stage.module(accumulated)
        found.append(_compare(stage.name, from_same, accumulated, theirs, tolerance))
        own = torch.from_numpy(theirs).to(images)
    logits = accumulated.cpu().numpy()
    return ParityReport(
        stages=tuple(found),
        agreement=float(np.mean(logits.argmax(-1) == ours[-1].argmax(-1))),
        largest_logit_difference=float(np.abs(logits - ours[-1]).max()),
    )


def _compare(name: str, same_input: Tensor, accumulated: Tensor, theirs: Array, tolerance: float) -> StageParity:
    difference = np.abs(same_input.cpu().numpy() - theirs)
    unit = max(float(theirs.std()), float(np.finfo(np.float32).tiny))
    total = np.abs(accumulated.cpu().numpy() - theirs)
    return StageParity(
        name=name,
        largest_difference=float(difference.max()),
        relative_difference=float(difference.max()) / unit,
        differing_share=float(np.mean(difference > tolerance * unit)),
        accumulated_share=float(np.mean(total > tolerance * unit)),
    )


def differing_weights(first: str | Path, second: str | Path) -> Sequence[str]:
    """The weights whose integers differ between two files, or that only one of them has. Compared exactly."""
    ours, theirs = integer_weights(first), integer_weights(second)
    both = {name for name in ours.keys() & theirs.keys() if np.array_equal(ours[name], theirs[name])}
    return sorted((ours.keys() | theirs.keys()) - both)
