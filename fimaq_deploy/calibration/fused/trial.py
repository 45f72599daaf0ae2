"""Whether the kernels compute on a device what torch's operators do: tried once a process, before anything is learned.

A GPU generation, a driver or a Triton that nobody ran them with may refuse one, or round in another way. Where that is
so, learning goes on with torch's operators and says why.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache

import torch
from torch import Tensor
from torch.nn import functional as F

from fimaq_deploy.calibration.device import of
from fimaq_deploy.calibration.learning import fisher
from fimaq_deploy.calibration.quantizers import straight_through

_NEAR = 1e-3  # of the norm; a code that is another one is more
Pair = tuple[Tensor, Tensor]


def try_kernels(device: torch.device) -> None:
    """From now on a device of this kind takes kernels only if they are right there."""
    if not of(device).fuses:
        return
    problem = _problem(device)
    if problem:
        type(of(device)).fuses = False
        warnings.warn(
            f"learning runs without Triton's kernels, which takes longer: {problem}", RuntimeWarning, stacklevel=2
        )


@contextmanager
def kernels(device: torch.device, on: bool) -> Iterator[None]:
    """Inside, devices of this kind take kernels, or torch's operators: for whoever compares the two."""
    kind = type(of(device))
    before, kind.fuses = kind.fuses, on
    try:
        yield
    finally:
        kind.fuses = before


@cache
def _problem(device: torch.device) -> str:
    for name, trial in _TRIALS.items():
        try:
            with of(device).own_randomness(), torch.enable_grad(), torch.autocast(device.type, enabled=False):
                wrong = [n for n, (found, expected) in enumerate(trial(device)) if not _near(found, expected)]
        except Exception as error:  # whatever a compiler or a driver raises
            return f"{name} failed on {device}: {type(error).__name__}: {' '.join(str(error).split())[:200]}"
        if wrong:
            return f"{name} on {device} does not compute what torch does"
    return ""


def _near(found: Tensor, expected: Tensor) -> bool:
    return bool((found - expected).norm() <= _NEAR * expected.norm())


def _wave(*shape: int, seed: float, device: torch.device) -> Tensor:
    """Numbers around zero that are the same everywhere."""
    count = torch.Size(shape).numel()
    return (torch.arange(1, count + 1, dtype=torch.float64) * seed).sin().mul(2).float().view(shape).to(device)


def _both(found: Tensor, expected: Tensor, *leaves: Tensor) -> Iterator[Pair]:
    """Results and the gradients of what went in."""
    pull = _wave(*found.shape, seed=3.7, device=found.device)
    yield found.detach(), expected.detach()
    yield from zip(*(torch.autograd.grad(each, leaves, pull) for each in (found, expected)), strict=True)


def _grid(device: torch.device, scale: float) -> tuple[Tensor, Tensor]:
    return tuple(torch.tensor(value, device=device, requires_grad=True) for value in (scale, 7.0))  # type: ignore[return-value]


def _activations(device: torch.device, *, gelu: bool) -> Iterator[Pair]:
    from fimaq_deploy.calibration.fused.fake_quantize import FakeQuantize

    x = _wave(2, 5, 3, 24, seed=1.37, device=device).transpose(1, 2).requires_grad_()
    drawn, (scale, offset) = _wave(2, 3, 5, 1, seed=0.71, device=device), _grid(device, 0.1371)
    found = FakeQuantize.apply(x, scale, offset, 15, drawn, 0.3, gelu)
    given = F.gelu(x) if gelu else x
    expected = straight_through.FakeQuantize.apply(given, scale, offset, 15, (drawn < 0.3).to(x.dtype))
    return _both(found, expected, x, scale, offset)


def _softmax(device: torch.device) -> Iterator[Pair]:
    from fimaq_deploy.calibration.fused.softmax import QuantizedSoftmax

    products, drawn = (
        _wave(2, 3, 17, seed=1.91, device=device).requires_grad_(),
        _wave(2, 3, 1, seed=0.7, device=device),
    )
    scale, offset = _grid(device, 0.01873)
    found = QuantizedSoftmax.apply(products, 0.7, scale, offset, 15, drawn, 0.3)
    weights = (products * 0.7).softmax(-1)
    expected = straight_through.FakeQuantize.apply(weights, scale, offset, 15, (drawn < 0.3).to(weights.dtype))
    return _both(found, expected, products, scale, offset)


def _weights(device: torch.device) -> Iterator[Pair]:
    from fimaq_deploy.calibration.fused.weights import RoundedWeight

    latent, delta = (_wave(6, 40, seed=seed, device=device) for seed in (1.43, 0.93))
    delta, scale = delta.requires_grad_(), _wave(6, 1, seed=0.5, device=device).requires_grad_()
    found, expected = (
        kind.apply(latent, delta, scale, -2, 1) for kind in (RoundedWeight, straight_through.RoundedWeight)
    )
    return _both(found, expected, delta, scale)


def _rows(device: torch.device) -> Iterator[Pair]:
    from fimaq_deploy.calibration.fused.rows import mixed

    rough, fine = (_wave(6, 3, 20, seed=seed, device=device) for seed in (1.1, 1.7))
    index = torch.tensor([4, 1, 5], device=device)
    yield mixed((rough, index), (fine, index), 0.0), rough[index]
    yield mixed((rough, index), (fine, index), 1.0), fine[index]


def _cost(device: torch.device) -> Iterator[Pair]:
    from fimaq_deploy.calibration.fused.fisher import cost

    output, z = _wave(3, 70, seed=1.3, device=device).requires_grad_(), _wave(5, 70, seed=1.9, device=device)
    factor, curvature = _wave(70, 5, seed=0.3, device=device), _wave(70, seed=0.9, device=device).abs()
    index, start = torch.tensor([3, 0, 4], device=device), torch.tensor(2.0, device=device)
    found = cost(output, z, index, low_rank=(factor, start, 0.5), diagonal=(curvature, start, 2.0))
    d = output - z[index]
    expected = 0.5 * fisher.low_rank(d, factor) / start + 2.0 * fisher.diagonal(d, curvature) / start
    return _both(found, expected, output)


_TRIALS: dict[str, Callable[[torch.device], Iterator[Pair]]] = {
    "fake quantization": lambda device: _activations(device, gelu=False),
    "fake quantization behind a GELU": lambda device: _activations(device, gelu=True),
    "fake quantization of a softmax": _softmax,
    "rounding of weights": _weights,
    "mixing of rows": _rows,
    "the loss": _cost,
}
