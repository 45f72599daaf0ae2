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

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fimaq_deploy.calibration.learning.arithmetic import exact_arithmetic
from fimaq_deploy.calibration.learning.outputs import Outputs
from fimaq_deploy.calibration.quantizers.block_floats import BlockActivationQuantizer
from fimaq_deploy.calibration.quantizers.float_quant import FloatActivationQuantizer
from fimaq_deploy.calibration.quantizers.layers import activation_quantizers
from fimaq_deploy.calibration.quantizers.nearest import levels, nearest
from fimaq_deploy.engines.options import OPTIMISATIONS, THREADS
from fimaq_deploy.engines.runner import Array
from fimaq_deploy.engines.runtimes import REFERENCE, Runtime, find_runtime
from fimaq_deploy.errors import UserError
from fimaq_deploy.graph.inspection import integer_weights
from fimaq_deploy.models.families import find_family
from fimaq_deploy.models.families.roles import Stage
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
class Flips:
    """How the integers of some quantizers differ: by how many steps at most, and which shares, in [0, 1]."""

    largest_step: int
    flipped: float
    beyond_one: float


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
    forced = _Forced(quantized, integers)
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
            flips = _flips_behind(following, from_same, own)
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


class _Forced:
    """Runs a stage so that each quantizer hands on the runtime's integers, and compares them with its own."""

    def __init__(self, quantized: Any, integers: Mapping[str, Array]) -> None:
        self._integers = {
            module: torch.from_numpy(integers[name])
            for name, module in activation_quantizers(getattr(quantized, "model", quantized))
            if name in integers and not isinstance(module, BlockActivationQuantizer)
        }

    def __call__(self, stage: nn.Module, x: Tensor) -> tuple[Tensor, Flips | None]:
        """The stage's output, and the flips of all its quantizers together."""
        steps: list[Tensor] = []

        def force(quantizer: Any, inputs: tuple[Tensor, ...], _: Tensor) -> Tensor | None:
            if quantizer not in self._integers:
                return None
            ours = _integers_of(quantizer, inputs[0])
            theirs = _in_layout_of(ours, self._integers[quantizer].to(ours))
            if isinstance(quantizer, FloatActivationQuantizer):
                steps.append((_places(ours, quantizer) - _places(theirs, quantizer)).abs().flatten())
                return theirs * quantizer.scale
            steps.append((ours - theirs).abs().flatten())
            return (theirs - quantizer.span.zero_point) * quantizer.scale

        with _hooks(stage, lambda quantizer: quantizer.register_forward_hook(force)):
            y = stage(x)
        return y, _flips(torch.cat(steps)) if steps else None


def _in_layout_of(ours: Tensor, theirs: Tensor) -> Tensor:
    """The same integers, where the file may quantize k after its transpose: whichever layout fits better.

    And where `export.products` gave rows an axis of their own or cut an image into windows, and `export.rows` left the
    first row alone: the others are ours.
    """
    if theirs.ndim == ours.ndim + 1:
        return theirs.squeeze(1)
    if theirs.ndim == 3 and theirs.shape == ours[:, :1].shape:
        return torch.cat([theirs, ours[:, 1:]], dim=1)
    turned = theirs.transpose(-2, -1)
    if ours.shape not in (theirs.shape, turned.shape):
        return _image_of(theirs, ours.shape)
    if theirs.shape != ours.shape:
        return turned
    if turned.shape != ours.shape:
        return theirs
    return min((theirs, turned), key=lambda each: float((each != ours).float().mean()))


def _image_of(windows: Tensor, shape: Sequence[int]) -> Tensor:
    """(N, C, H, W) from windows (N, rows, columns, C · height · width)."""
    count, channels, height, width = shape
    _, rows, columns, _ = windows.shape
    split = windows.reshape(count, rows, columns, channels, height // rows, width // columns)
    return split.permute(0, 3, 1, 4, 2, 5).reshape(shape)


def _integers_of(quantizer: Any, x: Tensor) -> Tensor:
    """The integers of a tensor, or the values of its floating-point format."""
    if isinstance(quantizer, FloatActivationQuantizer):
        return nearest(quantizer.steps(x), quantizer.grid.values)
    span = quantizer.span
    return (x / quantizer.scale).round().add(span.zero_point).clamp(span.low, span.high)


def _places(values: Tensor, quantizer: FloatActivationQuantizer) -> Tensor:
    """The place of each value among those of its format, so that neighbours are one step apart."""
    known = levels(quantizer.grid.values, values.device)
    return torch.searchsorted(known, values.contiguous()).to(values)


def _flips(steps: Tensor) -> Flips | None:
    if not steps.isfinite().all():
        return None
    return Flips(int(steps.max()), float((steps > 0).double().mean()), float((steps > 1).double().mean()))


class _Reached(Exception):
    """Ends a stage's forward pass at its first quantizer."""


def _flips_behind(following: Stage | None, ours: Tensor, theirs: Tensor) -> Flips | None:
    """How the integers differ that a stage's first quantizer makes of two inputs, or 8 bits over their range."""
    first, second = (_first_integers(following.module, x) if following else None for x in (ours, theirs))
    if first is None or second is None:
        scale = ours.abs().amax().clamp(min=torch.finfo(ours.dtype).tiny) / 127
        first, second = ((x / scale).round() for x in (ours, theirs))
    return _flips((first - second).abs().flatten())


def _first_integers(stage: nn.Module, x: Tensor) -> Tensor | None:
    found: list[Tensor] = []

    def stop(quantizer: Any, inputs: tuple[Tensor, ...]) -> None:
        seen = _integers_of(quantizer, inputs[0])
        found.append(_places(seen, quantizer) if isinstance(quantizer, FloatActivationQuantizer) else seen)
        raise _Reached

    with _hooks(stage, lambda quantizer: quantizer.register_forward_pre_hook(stop)) as hooked:
        try:
            if hooked:
                stage(x)
        except _Reached:
            return found[0]
    return None


@contextmanager
def _hooks(stage: nn.Module, register: Callable[[Any], Any]) -> Iterator[int]:
    """Hooks on all quantizers of a stage; yields how many there are."""
    handles = [register(quantizer) for _, quantizer in activation_quantizers(stage)]
    try:
        yield len(handles)
    finally:
        for handle in handles:
            handle.remove()


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


def differing_weights(first: str | Path, second: str | Path) -> Sequence[str]:
    """The weights whose integers differ between two files, or that only one of them has. Compared exactly.

    A file is ONNX, or the `quantized.safetensors` that a quantized model is saved as. A convolution in one file and the
    product that it is in the other have the same weights.
    """
    ours, theirs = _stored_integers(first), _stored_integers(second)
    both = {name for name in ours.keys() & theirs.keys() if np.array_equal(_matrix(ours[name]), _matrix(theirs[name]))}
    return sorted((ours.keys() | theirs.keys()) - both)


def _stored_integers(path: str | Path) -> dict[str, Array]:
    if Path(path).suffix != ".safetensors":
        return dict(integer_weights(path))
    from fimaq_deploy.calibration.state import read_state

    state, _ = read_state(Path(path))
    # Scales of blocks are stored as 8-bit floats too.
    few = {name: tensor for name, tensor in state.items() if tensor.dtype.itemsize == 1}
    stored = {name: tensor for name, tensor in few.items() if name.endswith((".q_weight", ".q_scale"))}
    return {name: (each.float() if each.is_floating_point() else each).numpy() for name, each in stored.items()}


def _matrix(weights: Array) -> Array:
    """Weights as [in, out]; a convolution's are [out, in, height, width]."""
    return weights.reshape(len(weights), -1).T if weights.ndim == 4 else weights
