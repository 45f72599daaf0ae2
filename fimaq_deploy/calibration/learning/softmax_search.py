"""The scale of attention weights by what they make of v.

A weight of a row over hundreds of tokens is mostly smaller than half a step of a grid that covers the largest one. The
plain error of the weights hardly counts these, but they lose in one direction: whole tenths of a row are rounded away,
and what attention returns is that much smaller. So the largest weights are cut off until the product with v is best.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from fimaq_deploy.calibration.quantizers.fake_quant import ActivationQuantizer
from fimaq_deploy.calibration.quantizers.grid import ActivationGrid
from fimaq_deploy.calibration.quantizers.layers import AttentionQuantizers

_LEAST_SHARE = 0.02  # of the largest weight
_WEIGHTS = 2**22  # of one attention that a search looks at


@torch.no_grad()
def search_softmax(stage: nn.Module, images: Tensor, candidates: int) -> None:
    """Set the scale of the attention weights below a stage, which computes in full precision meanwhile.

    images: inputs of the stage, of which as many are taken as memory is meant for.
    """
    for quantizers in [m for m in stage.modules() if isinstance(m, AttentionQuantizers)]:
        if isinstance(quantizers.softmax.grid, ActivationGrid):
            weights, values = _operands(stage, quantizers, images)
            search_products(quantizers.softmax, weights, values, candidates)


@torch.no_grad()
def search_products(quantizer: ActivationQuantizer, weights: Tensor, values: Tensor, candidates: int) -> None:
    """The range [0, largest · share] whose quantized weights change their product with v least.

    weights: (batch, heads, tokens, tokens). values: (batch, heads, tokens, head size).
    """
    exact, largest = weights @ values, weights.max()
    low = torch.zeros_like(largest)
    best, least = quantizer.fit_bounds(low, largest), torch.full_like(largest, torch.inf)
    for share in torch.logspace(0, torch.tensor(_LEAST_SHARE).log10().item(), candidates).tolist():
        scale, offset = quantizer.fit_bounds(low, largest * share)
        error = ((quantizer.on_grid(weights / scale, offset) * scale) @ values - exact).square().mean()
        if error < least:
            best, least = (scale, offset), error
    quantizer.scale.copy_(best[0])
    quantizer.offset.copy_(best[1])


def _operands(stage: nn.Module, quantizers: AttentionQuantizers, images: Tensor) -> tuple[Tensor, Tensor]:
    """The weights and values of one attention, at most `_WEIGHTS` of the former and one image at least."""
    seen: dict[str, Tensor] = {}

    def watch(name: str) -> Any:
        return lambda _module, inputs: seen.__setitem__(name, inputs[0])

    watched = {"weights": quantizers.softmax, "values": quantizers.v}
    handles = [module.register_forward_pre_hook(watch(name)) for name, module in watched.items()]
    kept: list[tuple[Tensor, Tensor]] = []
    try:
        for image in images.split(1):
            stage(image)
            kept.append((seen["weights"], seen["values"]))
            if (len(kept) + 1) * kept[0][0].numel() > _WEIGHTS:
                break
    finally:
        for handle in handles:
            handle.remove()
    return torch.cat([one for one, _ in kept]), torch.cat([one for _, one in kept])
