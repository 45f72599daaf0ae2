"""A copy of a model whose layers are quantized twins, still computing in full precision until they are enabled."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from timm.layers.attention import Attention
from timm.models.swin_transformer import (
    SwinTransformerBlock,
    WindowAttention,
)
from torch import Tensor, nn

from fimaq_deploy.calibration.network.plan import edge_of, left_alone
from fimaq_deploy.calibration.quantizers.grid import ActivationGrid, activation_grid, weight_grid
from fimaq_deploy.calibration.quantizers.layers import (
    AttentionQuantizers,
    QuantizedAttention,
    QuantizedConv2d,
    QuantizedLinear,
    QuantizedWindowAttention,
)
from fimaq_deploy.recipe import Recipe
from fimaq_deploy.target import Target

# What a shifted window's mask adds to the scores of tokens that are hidden. With timm's -100 a hidden token weighs
# e^-100, a denormal number: nothing to the sum, but ten times the time of the product with v on a CPU. This weighs 0.
_HIDDEN = -1e4


def quantized_twin(model: nn.Module, recipe: Recipe, target: Target, tokens: dict[str, int]) -> nn.Module:
    """A deep copy of the model with its layers replaced by quantized twins, still computing in full precision.

    What `placement.left_alone` names keeps its floats.

    tokens: the sequence length that each attention module sees, for the target's attention envelope.

    Raises:
        UserError: the model's structure is not understood, or the target cannot execute the recipe's grids.
    """
    twin = copy.deepcopy(model).eval()
    alone = left_alone(model, recipe, target, tokens)
    for name, module in list(twin.named_modules()):
        if isinstance(module, nn.Linear | nn.Conv2d) and name not in alone:
            replace_module(twin, name, _quantized_layer(name, module, recipe, target))
    for name, module in list(twin.named_modules()):
        if isinstance(module, Attention | WindowAttention):
            grids = (None, None) if name in alone else _attention_grids(recipe, target)
            kind = QuantizedAttention if isinstance(module, Attention) else QuantizedWindowAttention
            replace_module(twin, name, kind(module, AttentionQuantizers(*grids)))
        elif isinstance(module, SwinTransformerBlock) and module.attn_mask is not None:
            module.attn_mask = module.attn_mask.masked_fill(module.attn_mask < 0, _HIDDEN)
    # The new scales were made on the host.
    return twin.to(next(model.parameters()).device).requires_grad_(False)


def replace_module(root: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, leaf = name.rpartition(".")
    setattr(root.get_submodule(parent), leaf, module)


def _quantized_layer(
    name: str, layer: nn.Linear | nn.Conv2d, recipe: Recipe, target: Target
) -> QuantizedLinear | QuantizedConv2d:
    edge = edge_of(name, recipe)
    bits = edge.weight_bits or recipe.weights.bits
    block = recipe.weights.block_size
    own_width = edge.weight_bits is not None and edge.weight_bits != recipe.weights.bits
    if isinstance(layer, nn.Conv2d) or own_width or (block and layer.in_features % block):
        block = None
    weights = weight_grid(bits, block, target)
    inputs = _activation_grid(edge.activation_bits or recipe.activations.bits, recipe, target)
    kind: Callable[..., Any] = QuantizedConv2d if isinstance(layer, nn.Conv2d) else QuantizedLinear
    return kind(layer, weights, inputs)


def _activation_grid(bits: int, recipe: Recipe, target: Target, *, nonnegative: bool = False) -> ActivationGrid | None:
    return None if bits == 16 else activation_grid(bits, recipe.activations.scheme, target, nonnegative=nonnegative)


def _attention_grids(recipe: Recipe, target: Target) -> tuple[ActivationGrid | None, ActivationGrid | None]:
    """Of q, k and v, and of the softmax output."""
    bits, envelope = recipe.activations.bits, target.attention
    softmax_bits = recipe.attention.softmax_bits or max(bits, envelope.least_softmax_bits if envelope else bits)
    operands = _activation_grid(bits, recipe, target)
    return operands, _activation_grid(softmax_bits, recipe, target, nonnegative=True)


@torch.no_grad()
def attention_tokens(model: nn.Module, image: Tensor) -> dict[str, int]:
    """The sequence length that each attention module sees for one image (1, C, H, W)."""
    seen: dict[str, int] = {}

    def watch(name: str) -> Callable[..., None]:
        return lambda _module, inputs: seen.__setitem__(name, inputs[0].shape[1])

    found = [(name, m) for name, m in model.named_modules() if isinstance(m, Attention | WindowAttention)]
    handles = [module.register_forward_pre_hook(watch(name)) for name, module in found]
    try:
        model(image)
    finally:
        for handle in handles:
            handle.remove()
    return seen
