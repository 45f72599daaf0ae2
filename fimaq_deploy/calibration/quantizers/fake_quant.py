"""Fake quantizers whose scales, offsets and roundings can be learned.

An activation quantizer is per tensor: a scale and an integer offset o, so that values lie on
`scale * {-o, ..., 2**bits - 1 - o}`. A weight quantizer has one scale per output channel (or per block of inputs) and
a rounding, see `calibration.quantizers.rounding`. Both pass gradients straight through the rounding and train their
scales as LSQ does (Esser et al., "Learned Step Size Quantization", ICLR 2020).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from fimaq_deploy.calibration.device import is_host, of
from fimaq_deploy.calibration.quantizers import ops as _ops  # noqa: F401  (registers torch.ops.fimaq)
from fimaq_deploy.calibration.quantizers.grid import ActivationGrid, FloatWeightGrid, IntegerRange, WeightGrid
from fimaq_deploy.calibration.quantizers.observer import Observer
from fimaq_deploy.calibration.quantizers.straight_through import (
    FakeQuantize,
    RoundedWeight,
    round_straight_through,
)


def fake_quantize(x: Tensor, scale: Tensor, offset: Tensor, top: int, keep: Tensor | None = None) -> Tensor:
    """`scale * clamp(round(x / scale), low, low + top)` with low = -round(offset); gradients to x, scale and offset.

    scale, offset: without dimensions. keep: `rows_kept`. Where kernels are fused, `calibration.fused` has its own.
    """
    return FakeQuantize.apply(x, scale, offset, top, keep if keep is None else keep.to(x.dtype))


def rows_drawn(x: Tensor) -> Tensor:
    """A number from 0 to 1 for each row of x, (..., 1). What is below a share decides about that share of them."""
    return torch.rand((*x.shape[:-1], 1), device=x.device)


def rows_kept(x: Tensor, share: float) -> Tensor:
    """Which rows of x stay in full precision, about so large a share of them: (..., 1), 1 for those, 0 for others."""
    drawn = rows_drawn(x)
    # In place the answer is numbers already, which is what a CPU computes with. Kernels take a byte each.
    return drawn.lt_(share) if is_host(x.device) else drawn < share


def short_scale(scale: Tensor, digits: int, *, up: bool = False) -> Tensor:
    """The nearest float16 with so many binary digits behind the point of its significand; see `calibration.grid`.

    up: the next larger one instead, so that bounds stay covered.
    """
    return _shortened(scale, steps_of_significand(digits), up)


def steps_of_significand(digits: int) -> float:
    """Of a fraction in [½, 1) with so many binary digits behind the first."""
    return 2.0 ** (digits + 1)


def _shortened(scale: Tensor, steps: float | Tensor, up: bool) -> Tensor:
    fraction, exponent = torch.frexp(scale.clamp(2.0**-20, 2.0**15))
    whole = (fraction * steps).ceil() if up else (fraction * steps).round()
    return torch.ldexp(whole / steps, exponent).half().float()


class ShortScale(torch.autograd.Function):
    """`short_scale` with the gradient of the identity. steps: `steps_of_significand`, or one such number a scale."""

    @staticmethod
    def forward(ctx: Any, scale: Tensor, steps: float | Tensor) -> Tensor:
        return _shortened(scale, steps, up=False)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return grads[0], None


class ActivationQuantizer(nn.Module):
    """Per-tensor fake quantization of an activation; the identity until it is enabled.

    drop: while learning, the share of rows (everything but the last axis) that stay in full precision (QDrop, Wei et
    al., ICLR 2022, which drops single elements; rows cost far fewer random numbers).
    """

    scale: Tensor
    offset: Tensor

    def __init__(self, grid: ActivationGrid | None, nonnegative: bool = False) -> None:
        super().__init__()
        self.grid = grid
        self.nonnegative = nonnegative
        self.enabled = False
        self.frozen = False
        self.drop = 0.0
        self.observer: Observer | None = None
        self.behind_gelu = False  # whether what comes in is still to pass one, where `fuses`
        self.scale = nn.Parameter(torch.ones(()))
        self.offset = nn.Parameter(torch.zeros(()))
        self.log_scale: nn.Parameter | None = None
        self.short_scale: Tensor | None = None  # what `SharedScales` made of the logarithm
        self.span = IntegerRange(0, 0)

    @torch.no_grad()
    def learn(self, drop: float, lr: float) -> list[dict[str, Any]]:
        """Start learning. Returns optimiser groups: the logarithm of the scale, and the offset if it is free.

        lr: the relative change of the scale a step makes; the offset moves by the same share of the whole range.
        """
        self.drop = drop
        self.log_scale = nn.Parameter(self.scale.log())
        self.offset.requires_grad_(self.offset_is_free)
        offset = [{"params": [self.offset], "lr": lr * self.top}] if self.offset_is_free else []
        return [{"params": [self.log_scale], "lr": lr}, *offset]

    @torch.no_grad()
    def settle(self) -> None:
        """Stop learning and keep what was learned."""
        self.drop = 0.0
        if self.log_scale is not None:
            self.scale.copy_(self.log_scale.exp())
            self.log_scale = self.short_scale = None
        self.offset.requires_grad_(False)
        self.offset.copy_(self.offset.round().clamp(*self.offset_bounds))

    @property
    def offset_is_free(self) -> bool:
        first, last = self.offset_bounds
        return first < last

    @property
    def scale_digits(self) -> int:
        assert self.grid is not None
        return self.grid.scale_digits

    @property
    def top(self) -> int:
        assert self.grid is not None
        # Symmetric integers waste their negative half on a tensor that has none: keep [0, 2**(bits - 1) - 1].
        halved = self.nonnegative and self.grid.scheme == "symmetric"
        return 2 ** (self.grid.bits - halved) - 1

    @property
    def offset_bounds(self) -> tuple[int, int]:
        assert self.grid is not None
        return (0, 0) if self.nonnegative else self.grid.offsets

    def integer_range(self, offset: int | None = None) -> IntegerRange:
        """The integers that the frozen quantizer writes; its offset, where the caller has it on the host already."""
        assert self.grid is not None
        offset = round(self.offset.item()) if offset is None else offset
        if self.nonnegative:
            return IntegerRange(0, self.top)
        return self.grid.range(offset)

    def fit_bounds(self, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
        """Scale and offset that cover [low, high] as well as the grid can, elementwise."""
        assert self.grid is not None, "a tensor in high precision has no grid to fit"
        first, last = self.offset_bounds
        if first == last and first:
            scale = torch.maximum(low.abs() / first, high / (self.top - first))
        else:
            scale = (high.clamp(min=0) - low.clamp(max=0)) / self.top
        scale = short_scale(scale, self.grid.scale_digits, up=True)
        return scale, (-low / scale).round().clamp(first, last)

    @torch.no_grad()
    def set_bounds(self, low: Tensor, high: Tensor) -> None:
        """Cover [low, high] as well as the grid can."""
        scale, offset = self.fit_bounds(low, high)
        self.scale.copy_(scale)
        self.offset.copy_(offset)

    def steps(self, x: Tensor) -> Tensor:
        """A tensor in units of the frozen grid, before rounding, zero point included."""
        return x / self.scale + self.span.zero_point

    def on_grid(self, steps: Tensor, offset: Tensor) -> Tensor:
        """Values in units of their scale, which are changed, to those of the grid with these offsets."""
        steps, low = steps.round_(), -offset
        if not is_host(steps.device):
            return steps.clamp_(low, low + self.top)
        # A CPU compares with one tensor at a time in vectors, with two number by number: ten times slower.
        return steps.clamp_min_(low).clamp_max_(low + self.top)

    def shrunken(self, candidates: int, device: torch.device) -> Tensor:
        """The shares of a tensor's range that a search tries, the whole first."""
        return torch.linspace(1, 0.02, candidates, device=device)

    def freeze(self) -> None:
        freeze_activations([self])

    def forward(self, x: Tensor) -> Tensor:
        if self.observer is not None:
            self.observer.add(x.detach())
        if not self.enabled or self.grid is None:
            return x
        if self.frozen:
            return self._frozen(x)
        return self._learning(x)

    def _frozen(self, x: Tensor) -> Tensor:
        span = self.span
        return torch.ops.fimaq.quantize_dequantize(x, self.scale, span.zero_point, span.low, span.high)

    def fuses(self, x: Tensor) -> bool:
        """Whether it quantizes x in a kernel that can do what comes before as well."""
        learns = self.enabled and not self.frozen and self.observer is None
        return learns and isinstance(self.grid, ActivationGrid) and of(x.device).fuses

    def of_softmax(self, products: Tensor, factor: float) -> Tensor | None:
        """What it makes of softmax(products · factor) over the last axis, where one kernel does both; else None."""
        if not self.fuses(products):
            return None
        from fimaq_deploy.calibration.fused.softmax import LONGEST, QuantizedSoftmax

        if products.shape[-1] > LONGEST:
            return None
        found: Tensor = QuantizedSoftmax.apply(products, factor, *self._learned(), *self._drawn(products))
        return found

    def _learning(self, x: Tensor) -> Tensor:
        if not of(x.device).fuses:
            return fake_quantize(x, *self._learned(), self._rows_kept(x))
        from fimaq_deploy.calibration.fused import fake_quantize as fused

        found: Tensor = fused.FakeQuantize.apply(
            x, *self._learned(), *self._drawn(x), self.behind_gelu and self.fuses(x)
        )
        return found

    def _learned(self) -> tuple[Tensor, Tensor, int]:
        return current_scale(self), self.offset, self.top

    def _drawn(self, x: Tensor) -> tuple[Tensor | None, float]:
        """As kernels take it: numbers for the rows of x, and the share of them that stays in full precision."""
        return rows_drawn(x) if self.drop else None, self.drop

    def _rows_kept(self, x: Tensor) -> Tensor | None:
        return rows_kept(x, self.drop) if self.drop else None


def alike(quantizers: Iterable[ActivationQuantizer]) -> list[list[ActivationQuantizer]]:
    """Those that have a grid, in groups of one grid: what is done to their scales is done to a whole group at once."""
    groups: dict[object, list[ActivationQuantizer]] = {}
    for quantizer in quantizers:
        if quantizer.grid is not None:
            groups.setdefault((quantizer.grid, quantizer.nonnegative), []).append(quantizer)
    return list(groups.values())


@torch.no_grad()
def freeze_activations(quantizers: Sequence[ActivationQuantizer]) -> None:
    """Round scales and offsets to what an engine stores, and compute with them from now on."""
    for group in alike(quantizers):
        scales = short_scale(torch.stack([each.scale for each in group]), group[0].scale_digits)
        offsets = torch.stack([each.offset for each in group]).round().clamp(*group[0].offset_bounds)
        torch._foreach_copy_([each.scale for each in group], list(scales.unbind()))
        torch._foreach_copy_([each.offset for each in group], list(offsets.unbind()))
    seal_activations(quantizers)


@torch.no_grad()
def seal_activations(quantizers: Sequence[ActivationQuantizer]) -> None:
    """Compute with scales and offsets as they stand from now on; nothing is rounded or learned any more."""
    found = [each for each in quantizers if each.grid is not None]
    # All offsets are fetched together: each time the host waits for the device.
    offsets = torch.stack([each.offset for each in found]).tolist() if found else []
    for quantizer, offset in zip(found, offsets, strict=True):
        quantizer.drop, quantizer.frozen = 0.0, True
        quantizer.span = quantizer.integer_range(round(offset))


class WeightQuantizer(nn.Module):
    """The integers and scales of one weight matrix [out, in] (a convolution is flattened to it).

    `latent` holds the weights in units of their scale before rounding; what turns it into integers is a rounding that
    reconstruction plugs in (`soft`), nearest otherwise.
    """

    latent: Tensor
    scale: Tensor

    def __init__(self, grid: WeightGrid, out_features: int, in_features: int) -> None:
        super().__init__()
        self.grid = grid
        blocks = 1 if grid.block_size is None else in_features // grid.block_size
        self.scale = nn.Parameter(torch.ones(out_features, blocks))
        self.latent = nn.Parameter(torch.zeros(out_features, in_features))
        self.soft: Any = None
        self.log_scale: nn.Parameter | None = None
        self.short_scale: Tensor | None = None

    @torch.no_grad()
    def learn_scale(self) -> list[nn.Parameter]:
        """Start learning the scales, as logarithms; the latent weights stay in units of them."""
        self.log_scale = nn.Parameter(self.scale.log())
        return [self.log_scale]

    @torch.no_grad()
    def settle_scale(self) -> None:
        """Stop learning the scales and keep what was learned."""
        if self.log_scale is not None:
            self.scale.copy_(self.log_scale.exp())
            self.log_scale = self.short_scale = None

    @property
    def scale_digits(self) -> int:
        return self.grid.scale_digits

    def steps(self, weight: Tensor) -> Tensor:
        """`weight / scale` elementwise, [out, in]."""
        return weight.div(self.expand(self.scale))

    def expand(self, scale: Tensor) -> Tensor:
        """A scale per weight, broadcastable to [out, in]."""
        if scale.shape[1] == 1:
            return scale
        return scale.repeat_interleave(self.latent.shape[1] // scale.shape[1], 1)

    def integers(self) -> Tensor:
        """Rounded and clamped integers as floats, [out, in]; differentiable while learning."""
        rounded = self.soft(self.latent) if self.soft is not None else round_straight_through(self.latent)
        return rounded.clamp(self.grid.range.low, self.grid.range.high)

    def forward(self) -> Tensor:
        scale = current_scale(self)
        # Told apart by what it learns: a rounding is a module of `calibration.quantizers.rounding`, which imports this.
        delta = getattr(self.soft, "delta", None)
        if delta is None or isinstance(self.grid, FloatWeightGrid):
            return self.integers() * self.expand(scale)
        bounds = self.grid.range.low, self.grid.range.high
        if of(delta.device).fuses and not torch.compiler.is_compiling():
            from fimaq_deploy.calibration.fused import weights

            return weights.RoundedWeight.apply(self.latent, delta, scale, *bounds)
        return RoundedWeight.apply(self.latent, delta, self.expand(scale), *bounds)


def current_scale(quantizer: ActivationQuantizer | WeightQuantizer) -> Tensor:
    """As it stands, or, while it is learned, made short from its logarithm."""
    if quantizer.log_scale is None:
        return quantizer.scale
    if quantizer.short_scale is not None:
        return quantizer.short_scale
    return ShortScale.apply(quantizer.log_scale.exp(), steps_of_significand(quantizer.scale_digits))
