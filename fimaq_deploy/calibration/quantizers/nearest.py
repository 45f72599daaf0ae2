"""Numbers to values of a floating-point format: the nearest, the two neighbours, and how far apart those are.

Everything works on float32 of any shape and device, and waits for none. `nearest` equals what QuantizeLinear of ONNX
writes with `saturate`, bit for bit.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fimaq_deploy.target.numbers import FloatFormat


def nearest(x: Tensor, form: FloatFormat) -> Tensor:
    """The nearest values, ties to even, saturated. NaN stays NaN."""
    inside = x.clamp(-form.largest, form.largest)
    if form.has_nan:  # torch has this type itself
        return inside.to(getattr(torch, form.torch)).to(x.dtype)
    gap = spacing(inside, form)
    return inside.div_(gap).round_().mul_(gap)


def below(x: Tensor, form: FloatFormat) -> Tensor:
    """The largest values that are not larger, saturated."""
    inside = x.clamp(-form.largest, form.largest)
    gap = spacing(inside, form)
    return torch.where(inside < 0, -_toward_infinity(-inside, gap), (inside / gap).floor() * gap)


def above(x: Tensor, form: FloatFormat) -> Tensor:
    """The smallest values that are larger; the largest itself stays."""
    low = below(x, form)
    # Going up from a negative power of two the gap is the smaller one.
    gap = torch.where(low < 0, spacing(low * (1 - 2.0**-12), form), spacing(low, form))
    return (low + gap).clamp(max=form.largest)


def spacing(x: Tensor, form: FloatFormat) -> Tensor:
    """The distance of neighbouring values where x lies, away from zero."""
    _, exponent = torch.frexp(x.abs().clamp(min=2.0**form.least_exponent))  # x = fraction · 2^exponent, at least ½
    return torch.ldexp(torch.ones_like(x), exponent - 1 - form.mantissa)


def _toward_infinity(x: Tensor, gap: Tensor) -> Tensor:
    """The smallest multiples of the gap that are not smaller: a power of two at the end of its binade, too."""
    return (x / gap).ceil() * gap


def levels(form: FloatFormat, device: torch.device | str = "cpu") -> Tensor:
    """Every value of a format in order, 0 once."""
    positive = torch.tensor(form.values, device=device)
    return torch.cat((-positive[1:].flip(0), positive))
