"""Fake-quant against a runtime, stage by stage: where do they part?

The runtime runs a copy of the shipped file that also outputs what every stage hands on. Each torch stage then gets what
the runtime's stage before it produced, so a difference belongs to the stage that made it and does not add up; what adds
up over the whole chain is reported beside it.

Two float programs that sum in another order round a value on the edge between two integers differently now and then,
and one such flip moves many sums and makes further flips behind it. So what is judged depends on what can be seen:

- *as written* (ONNX Runtime without optimisations): every quantizer's integers. In torch each quantizer then hands on
  the runtime's integers instead of its own, so every quantizer is judged on the same integers before it. Parity within
  one quantization step means: no integer differs by more than one, few differ at all, and what the stage hands on is
  the same float up to rounding.
- *fused* (optimisations on, or an engine): only what a stage hands on. It is judged on the integers that the next
  stage's first quantizer makes of it: few differ, hardly any by more than one, since flips inside cannot be told apart.
  Where the next stage has no quantizer (behind the head, before a head in floats, in weight-only models), 8 bits over
  the range of what is handed on stand in for it.

With float16 around the integers every float is rounded at 1/2000, which alone flips a large part of 8-bit integers;
such engines are measured and not judged.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fimaq_deploy.calibration.learning.arithmetic import exact_arithmetic
from fimaq_deploy.calibration.learning.outputs import Outputs
from fimaq_deploy.engines.options import OPTIMISATIONS, THREADS
from fimaq_deploy.engines.runner import Array
from fimaq_deploy.engines.runtimes import REFERENCE, Runtime, find_runtime
from fimaq_deploy.errors import UserError
from fimaq_deploy.models.families import find_family
from fimaq_deploy.models.families.roles import Stage
from fimaq_deploy.verify.flips import Flips, Forced, flips_behind
from fimaq_deploy.verify.taps import write_with_taps

# Elements that differ by more than this share of the output's standard deviation count as differing.
TOLERANCE = 1e-3


@dataclass(frozen=True)
class Limits:
    """What rounding on the edge may explain, as shares in [0, 1].

    differing: elements of a stage's output beyond the tolerance, where integers cannot judge it.
    flipped: integers that differ. beyond_one: integers that differ by more than one step.
    """

    differing: float
    flipped: float
    beyond_one: float


AS_WRITTEN = Limits(differing=1e-3, flipped=0.01, beyond_one=0.0)
FUSED = Limits(differing=0.01, flipped=0.05, beyond_one=0.01)
NOT_JUDGED = Limits(differing=1.0, flipped=1.0, beyond_one=1.0)


@dataclass(frozen=True)
class StageParity:
    """One stage, computed by both from the same input.

    largest_difference: largest absolute difference of two elements.
    relative_difference: the same over the standard deviation of the stage's output.
    differing_share: elements that differ by more than the tolerance, in [0, 1].
    accumulated_share: the same where each side feeds itself from the images on.
    flips: of the stage's own quantizers as written, None without any; of the one that it feeds where it is fused.
    """

    name: str
    largest_difference: float
    relative_difference: float
    differing_share: float
    accumulated_share: float
    flips: Flips | None = None


@dataclass(frozen=True)
class ParityReport:
    """All stages in execution order.

    agreement: the share of images with the same class, in [0, 1]; None for a model without classes.
    """

    stages: tuple[StageParity, ...]
    agreement: float | None
    largest_output_difference: float
    limits: Limits
    as_written: bool

    @property
    def first_parting(self) -> StageParity | None:
        """The first stage beyond the limits, None where there is none."""
        return next((stage for stage in self.stages if self._parts(stage)), None)

    def _parts(self, stage: StageParity) -> bool:
        flips, limits = stage.flips, self.limits
        floats = not np.isfinite(stage.largest_difference) or stage.differing_share > limits.differing
        if flips is None:
            return floats
        integers = flips.flipped > limits.flipped or flips.beyond_one > limits.beyond_one
        return integers or (floats and self.as_written)


def _with_one_output(stages: Sequence[Stage], images: Tensor) -> list[Stage]:
    """The chain, whose last stage returns several outputs as one matrix."""
    x: Any = images[:1]
    for stage in stages:
        x = stage.module(x)
    joined = not isinstance(x, Tensor) or any(stage.tap for stage in stages)
    return Outputs.of(x, 0).stages(stages) if joined else list(stages)


@torch.no_grad()
def compare_stages(
    quantized: Any,
    path: str | Path,
    images: Tensor,
    target: str = REFERENCE,
    *,
    optimisations: bool = False,
    threads: int | None = None,
    tolerance: float = TOLERANCE,
) -> ParityReport:
    """Compare a frozen quantized model with the ONNX file that was exported from it, run by a target.

    images: (N, C, H, W), float32, one batch.
    optimisations: of a runtime that has any to leave out; without them it may compute the graph as written.

    Raises:
        UserError: the file is not of this model, or the target cannot run here or show what is inside a graph.
    """
    runtime = find_runtime(target)
    if not runtime.taps:
        raise UserError(f"target {target} shows nothing inside a graph: compare its accuracy, not its blocks")
    asked = {OPTIMISATIONS: optimisations, THREADS: threads}
    options = {option.name: value for option, value in asked.items() if runtime.takes(option)}
    as_written = runtime.as_written and not options.get(OPTIMISATIONS.name)
    stages = _with_one_output(quantized.stages, images)
    names = [stage.name for stage in stages]
    theirs, integers = _run(Path(path), names, images.cpu().numpy(), runtime, as_written, options)
    forced = Forced(quantized, integers)
    own = accumulated = images
    found, taken = [], []
    for stage, following, result in zip(stages, (*stages[1:], None), theirs, strict=True):
        with exact_arithmetic(images.device):
            accumulated = stage.module(accumulated)
            from_same, flips = forced(stage.module, own)
            taken += [] if stage.tap is None else [stage.tap(accumulated).cpu().numpy()]
        if following is None and taken:  # what was handed out before is made of what earlier stages handed on
            result = result[:, -from_same.shape[1] :]
        own = torch.from_numpy(result).to(images)
        from_same = _rows_of(own, from_same)
        if not as_written:
            flips = flips_behind(following, from_same, own)
        found.append(_compare(stage.name, from_same, _rows_of(own, accumulated), result, tolerance, flips))
    last = _side_by_side([*taken, accumulated.cpu().numpy()])
    half = runtime.target.high_precision != "float32"
    return ParityReport(
        stages=tuple(found),
        agreement=_agreement(last, theirs[-1]) if last.shape == (len(last), _classes(quantized)) else None,
        largest_output_difference=float(np.abs(last - theirs[-1]).max()),
        limits=NOT_JUDGED if half else AS_WRITTEN if as_written else FUSED,
        as_written=as_written,
    )


def _classes(quantized: Any) -> int | None:
    """How many classes the model tells apart; None where that means nothing."""
    model = getattr(quantized, "model", quantized)
    family = find_family(model)
    return None if family is None or family.classes(model) < 2 else family.classes(model)


def _agreement(ours: Array, theirs: Array) -> float:
    return float(np.mean(ours.argmax(-1) == theirs.argmax(-1)))


def _run(
    path: Path, stages: Sequence[str], images: Array, runtime: Runtime, integers: bool, options: Mapping[str, Any]
) -> tuple[list[Array], dict[str, Array]]:
    """What every stage hands on, float32, in order, and the integers by the name of their quantizer."""
    with TemporaryDirectory() as folder:
        copy = Path(folder) / "boundaries.onnx"
        taps = write_with_taps(path, stages, copy, integers=integers)
        results = runtime.load(_compiled(copy, runtime), **options).outputs(images)
    handed_on = [np.asarray(results[name], np.float32) for name in taps.stages]
    handed_on.append(_side_by_side([np.asarray(results[name], np.float32) for name in taps.outputs]))
    return handed_on, {module: results[name] for module, name in taps.integers.items()}


def _side_by_side(outputs: Sequence[Array]) -> Array:
    """One output as it is, several as the columns of one matrix."""
    return outputs[0] if len(outputs) == 1 else np.concatenate([one.reshape(len(one), -1) for one in outputs], axis=1)


def _compiled(onnx: Path, runtime: Runtime) -> Path:
    return onnx if runtime.compiler is None else runtime.compile(onnx, onnx.with_suffix(runtime.suffix)).path


def _rows_of(theirs: Tensor, ours: Tensor) -> Tensor:
    """The rows of a stage's output that the file computes: `export.rows` leaves the first of the last block's."""
    return ours if theirs.shape == ours.shape else ours[:, : theirs.shape[1]]


def _compare(
    name: str, same_input: Tensor, accumulated: Tensor, theirs: Array, tolerance: float, flips: Flips | None
) -> StageParity:
    difference = np.abs(same_input.cpu().numpy() - theirs)
    unit = max(float(theirs.std()), float(np.finfo(np.float32).tiny))
    total = np.abs(accumulated.cpu().numpy() - theirs)
    return StageParity(
        name=name,
        largest_difference=float(difference.max()),
        relative_difference=float(difference.max()) / unit,
        differing_share=float(np.mean(difference > tolerance * unit)),
        accumulated_share=float(np.mean(total > tolerance * unit)),
        flips=flips,
    )
