"""What stays in high precision, and why. Everything else is quantized.

A layer is left alone where a target computes it no faster in integers: where it is tiny, and, on TensorRT, where it is
a head behind a mean over tokens, a product of one row an image: its compiler needs more kernels for that in integers
than in floats (`docs/log`, "heads behind a mean"). Not the patch embedding, however small: sums of integers are
exact, so every runtime hands the same tokens to the first block, where floats would flip integers all the way.

Attention is left alone outside a target's envelope, and where the target multiplies activations as fast in floats. A
recipe can refuse either, and ask for a head in integers all the same.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from timm.layers.attention import Attention
from timm.models.swin_transformer import SwinTransformer, WindowAttention
from torch import nn

from fimaq_deploy.recipe import Edge, Recipe
from fimaq_deploy.target import Target

_HEADS = ("head", "head_dist")


def left_alone(model: nn.Module, recipe: Recipe, target: Target, tokens: dict[str, int]) -> dict[str, str]:
    """The layers and attentions that stay in high precision, by name in the model's order, each with the reason.

    tokens: the sequence length that each attention module sees.
    """
    return dict(_left_alone(model, recipe, target, tokens))


def as_notes(alone: dict[str, str]) -> tuple[str, ...]:
    """What `left_alone` found, one sentence for each reason."""
    named: dict[str, list[str]] = {}
    for name, reason in alone.items():
        named.setdefault(reason, []).append(name)
    return tuple(
        f"{names[0]}{f' and {len(names) - 1} more' if len(names) > 1 else ''} left in high precision: {reason}"
        for reason, names in named.items()
    )


def _left_alone(model: nn.Module, recipe: Recipe, target: Target, tokens: dict[str, int]) -> Iterator[tuple[str, str]]:
    for name, module in model.named_modules():
        reason = None
        if isinstance(module, nn.Linear | nn.Conv2d):
            reason = _layer_reason(name, module, model, recipe, target)
        elif isinstance(module, Attention | WindowAttention):
            reason = _attention_reason(module, recipe, target, tokens[name])
        if reason is not None:
            yield name, reason


def edge_of(name: str, recipe: Recipe) -> Edge:
    """The recipe's own field for a layer; one that decides nothing where it has none."""
    if _is_patch_embedding(name):
        return recipe.patch_embed
    return recipe.head if _is_head(name) else Edge()


def _is_patch_embedding(name: str) -> bool:
    return name.startswith("patch_embed")


def _is_head(name: str) -> bool:
    return name.split(".")[0] in _HEADS


def _layer_reason(
    name: str, layer: nn.Linear | nn.Conv2d, model: nn.Module, recipe: Recipe, target: Target
) -> str | None:
    wanted = edge_of(name, recipe).quantize
    if wanted == "never":
        return "the recipe leaves it alone"
    if wanted == "always":
        return None
    outputs, inputs = layer.weight.flatten(1).shape
    if not _is_patch_embedding(name) and min(inputs, outputs) < target.least_product:
        return f"{inputs} inputs and {outputs} outputs, below {target.least_product} integers gain nothing"
    if _is_head(name) and _reads_a_mean(model) and not target.integer_pooled_head:
        return "behind a mean over tokens integers need more kernels than floats"
    return None


def _reads_a_mean(model: Any) -> bool:
    """Whether the head's input is a mean over tokens, and not one of them."""
    pool = model.head.global_pool.pool_type if isinstance(model, SwinTransformer) else model.global_pool
    return "avg" in pool


def _attention_reason(attention: Any, recipe: Recipe, target: Target, tokens: int) -> str | None:
    if recipe.attention.quantize == "never":
        return "the recipe leaves it alone"
    if 16 in (recipe.activations.bits, recipe.attention.softmax_bits):
        return "the recipe leaves its operands in high precision"
    if not target.integer_attention:
        return "floats are as fast for products of two activations"
    head_size = attention.qkv.weight.shape[0] // (3 * attention.num_heads)
    return target.attention.broken_rule(head_size, tokens) if target.attention else None
