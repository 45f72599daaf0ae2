"""The integers that quantizers make, in torch and in a runtime: by how many steps they differ, and how many do."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from fimaq_deploy.calibration.quantizers.block_floats import BlockActivationQuantizer
from fimaq_deploy.calibration.quantizers.float_quant import FloatActivationQuantizer
from fimaq_deploy.calibration.quantizers.layers import activation_quantizers
from fimaq_deploy.calibration.quantizers.nearest import levels, nearest
from fimaq_deploy.engines.runner import Array
from fimaq_deploy.models.families.roles import Stage


@dataclass(frozen=True)
class Flips:
    """How the integers of some quantizers differ: by how many steps at most, and which shares, in [0, 1]."""

    largest_step: int
    flipped: float
    beyond_one: float


class Forced:
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


def flips_behind(following: Stage | None, ours: Tensor, theirs: Tensor) -> Flips | None:
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
