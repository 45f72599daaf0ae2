"""Initial scales, before anything is learned.

Weights: per output channel (or block) the scale, out of a range of candidates, whose rounding changes the layer's
output least, with the output error approximated by the second moments of the inputs: sum_k E[x_k²] (w_k - ŵ_k)².
Activations: the bounds that minimise the squared error of a sample of the tensor, lower and upper bound in turn.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from fimaq_deploy.calibration.device import is_host
from fimaq_deploy.calibration.quantizers.fake_quant import ActivationQuantizer, Observer, WeightQuantizer, short_scale
from fimaq_deploy.calibration.quantizers.layers import (
    QuantizedLayer,
    activation_quantizers,
    enable_quantization,
    quantized_layers,
)

# Weights times candidates that are tried at once: what a CPU's cache holds, and what keeps a GPU busy.
_HOST_VALUES, _DEVICE_VALUES = 2**18, 2**26


@torch.no_grad()
def search_stage(stage: nn.Module, batches: Sequence[Tensor], candidates: int) -> None:
    """Set every scale below a stage from the stage's inputs; it computes in full precision meanwhile."""
    enable_quantization(stage, False)
    observed = observe(stage, batches)
    for name, quantizer in activation_quantizers(stage):
        search_activation(quantizer, observed[name].sample(), candidates)
    for name, layer in quantized_layers(stage):
        search_weight(layer, observed[f"{name}.input_quantizer" if name else "input_quantizer"], candidates)


@torch.no_grad()
def observe(stage: nn.Module, batches: Sequence[Tensor]) -> dict[str, Observer]:
    """What reaches each activation quantizer below a stage, by the quantizer's name."""
    found = {name: m for name, m in stage.named_modules() if isinstance(m, ActivationQuantizer)}
    observers = {name: Observer(batches=len(batches)) for name in found}
    for name, quantizer in found.items():
        quantizer.observer = observers[name]
    try:
        for batch in batches:
            stage(batch)
    finally:
        for quantizer in found.values():
            quantizer.observer = None
    return observers


def search_activation(quantizer: ActivationQuantizer, x: Tensor, candidates: int) -> None:
    """Bounds of least squared error on the values x: coordinate descent over shrunken lower and upper bounds."""
    shrink = torch.linspace(1, 0.02, candidates, device=x.device)
    lows, highs = x.amin().clamp(max=0) * shrink, x.amax().clamp(min=0) * shrink
    low, high = _best(quantizer, x, lows, highs)
    if quantizer.offset_is_free:
        for _ in range(2):
            low, high = _best(quantizer, x, low.expand_as(highs), highs)
            low, high = _best(quantizer, x, lows, high.expand_as(lows))
    quantizer.set_bounds(low, high)


def _best(quantizer: ActivationQuantizer, x: Tensor, lows: Tensor, highs: Tensor) -> tuple[Tensor, Tensor]:
    """The pair of bounds, out of many, with the least squared error on x."""
    scale, offset = (t[:, None] for t in quantizer.fit_bounds(lows, highs))
    steps = (x / scale).round_().clamp_(-offset, quantizer.top - offset).mul_(scale)
    best = steps.sub_(x).square_().mean(1).argmin().view(1)
    # Fetching the number would wait for a GPU.
    return lows.index_select(0, best)[0], highs.index_select(0, best)[0]


def search_weight(layer: QuantizedLayer, inputs: Observer, candidates: int) -> None:
    """Scales of least weighted error, and the latent weights at those scales."""
    weight = layer.matrix.float()
    quantizer = layer.weight_quantizer
    importance = torch.ones_like(weight[0]) if layer.weight.ndim == 4 else inputs.second_moments()
    importance = importance / importance.mean().clamp(min=1e-12) + 1e-4
    quantizer.scale.copy_(best_weight_scale(quantizer, weight, importance, candidates))
    quantizer.latent.copy_(quantizer.steps(weight))


def best_weight_scale(quantizer: WeightQuantizer, weight: Tensor, importance: Tensor, candidates: int) -> Tensor:
    """The best scale per output channel and block, [out, blocks]."""
    out_features, blocks = quantizer.scale.shape
    grouped = weight.view(out_features, blocks, -1)
    importance = importance.view(1, blocks, -1)
    span = quantizer.grid.range
    # The negative side has one more step: let it carry the larger tail.
    bound = torch.maximum(-grouped.amin(-1) / -span.low, grouped.amax(-1) / span.high).clamp(min=1e-8)
    best_error = torch.full_like(bound, torch.inf)
    best = bound.clone()
    at_once = max(1, (_HOST_VALUES if is_host(weight.device) else _DEVICE_VALUES) // weight.numel())
    for shrink in torch.linspace(1.0, 0.3, candidates, device=weight.device).split(at_once):
        scales = short_scale(bound * shrink[:, None, None], quantizer.grid.scale_digits, up=True)
        steps = (grouped / scales[..., None]).round_().clamp_(span.low, span.high).mul_(scales[..., None])
        error, which = (steps.sub_(grouped).square_() * importance).sum(-1).min(0)
        better = error < best_error
        best_error = torch.where(better, error, best_error)
        best = torch.where(better, scales.gather(0, which[None])[0], best)
    return best
