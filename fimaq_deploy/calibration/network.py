"""A timm ViT, DeiT or Swin as a chain of stages, and its quantized twin.

`logits = stages[-1](... stages[0](images))`: the patch embedding, every transformer block, every Swin patch merging and
the head. Reconstruction walks this chain, and parity compares runtimes at its joints. A structure that is not
understood is an error that names the module, never a wrong answer.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from timm.layers.attention import Attention
from timm.models.swin_transformer import (
    PatchMerging,
    SwinTransformer,
    SwinTransformerBlock,
    SwinTransformerStage,
    WindowAttention,
)
from timm.models.vision_transformer import Block, VisionTransformer
from torch import Tensor, nn

from fimaq_deploy.calibration.grid import ActivationGrid, activation_grid, weight_grid
from fimaq_deploy.calibration.layers import (
    AttentionQuantizers,
    QuantizedAttention,
    QuantizedConv2d,
    QuantizedLinear,
    QuantizedWindowAttention,
)
from fimaq_deploy.calibration.placement import edge_of, left_alone
from fimaq_deploy.errors import UserError
from fimaq_deploy.recipe import Recipe
from fimaq_deploy.target import Target

# What a shifted window's mask adds to the scores of tokens that are hidden. With timm's -100 a hidden token weighs
# e^-100, a denormal number: nothing to the sum, but ten times the time of the product with v on a CPU. This weighs 0.
_HIDDEN = -1e4


@dataclass(frozen=True)
class Stage:
    """One link of the chain. `module` maps the previous stage's output (batch first) to this one's."""

    name: str
    module: nn.Module


class _Edge(nn.Module):
    """The first or last stage. It calls the model's own methods but owns only the parts that it names."""

    def __init__(self, model: Any, parts: tuple[str, ...]) -> None:
        super().__init__()
        # A tuple hides the model from module traversal: only the parts belong to this stage.
        self._hidden = (model,)
        self.parts = nn.ModuleDict({part: getattr(model, part) for part in parts if hasattr(model, part)})


class _PatchStage(_Edge):
    """Images to tokens: patch embedding, class and register tokens, position embedding."""

    def __init__(self, model: Any) -> None:
        super().__init__(model, ("patch_embed", "norm_pre"))

    def forward(self, images: Tensor) -> Tensor:
        model = self._hidden[0]
        if isinstance(model, SwinTransformer):
            return model.patch_embed(images)
        return model.norm_pre(model.patch_drop(model._pos_embed(model.patch_embed(images))))


class _HeadStage(_Edge):
    """Tokens to logits: final norm, pooling and classifier; `features` stops before the classifier."""

    def __init__(self, model: Any) -> None:
        super().__init__(model, ("norm", "fc_norm", "head", "head_dist"))

    def forward(self, tokens: Tensor) -> Tensor:
        model = self._hidden[0]
        return model.forward_head(model.norm(tokens))

    def features(self, tokens: Tensor) -> Tensor:
        """The penultimate feature (batch, channels)."""
        model = self._hidden[0]
        return model.forward_head(model.norm(tokens), pre_logits=True)


def stages_of(model: nn.Module) -> list[Stage]:
    """The chain of a timm model, sharing its modules.

    Raises:
        UserError: the model is neither a timm VisionTransformer nor a SwinTransformer.
    """
    if isinstance(model, SwinTransformer):
        blocks = [stage for index, layer in enumerate(model.layers) for stage in _swin_layer(index, layer)]
    elif isinstance(model, VisionTransformer):
        blocks = [Stage(f"blocks.{index}", block) for index, block in enumerate(model.blocks)]
    else:
        raise UserError(
            f"{type(model).__name__} cannot be quantized: "
            "expected a timm VisionTransformer (ViT, DeiT) or SwinTransformer"
        )
    return [Stage("patch_embed", _PatchStage(model)), *blocks, Stage("head", _HeadStage(model))]


def _swin_layer(index: int, layer: Any) -> Iterator[Stage]:
    if not isinstance(layer.downsample, nn.Identity):
        yield Stage(f"layers.{index}.downsample", layer.downsample)
    for number, block in enumerate(layer.blocks):
        yield Stage(f"layers.{index}.blocks.{number}", block)


def check_structure(model: nn.Module) -> None:
    """Refuse what the quantized twin would compute differently.

    Raises:
        UserError: names the first module that is not understood.
    """
    if isinstance(model, VisionTransformer):
        if getattr(model, "attn_pool", None) is not None:
            raise UserError(
                "module 'attn_pool': attention pooling cannot be quantized yet; expected token or average pooling"
            )
        _expect_types("blocks", model.blocks, (Block,))
        for index, block in enumerate(model.blocks):
            _expect(f"blocks.{index}.attn", block.attn, (Attention,))
    elif isinstance(model, SwinTransformer):
        for index, layer in enumerate(model.layers):
            _expect(f"layers.{index}", layer, (SwinTransformerStage,))
            _expect(f"layers.{index}.downsample", layer.downsample, (PatchMerging, nn.Identity))
            _expect_types(f"layers.{index}.blocks", layer.blocks, (SwinTransformerBlock,))
            for number, block in enumerate(layer.blocks):
                _expect(f"layers.{index}.blocks.{number}.attn", block.attn, (WindowAttention,))
    else:
        stages_of(model)
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d) and name != "patch_embed.proj":
            raise UserError(f"module '{name}': a convolution outside the patch embedding is not understood")


def _expect_types(name: str, modules: Any, types: tuple[type[nn.Module], ...]) -> None:
    for index, module in enumerate(modules):
        _expect(f"{name}.{index}", module, types)


def _expect(name: str, module: nn.Module, types: tuple[type[nn.Module], ...]) -> None:
    if type(module) not in types:
        expected = " or ".join(kind.__name__ for kind in types)
        raise UserError(f"module '{name}' is a {type(module).__name__}, which is not understood: expected {expected}")


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
            _replace(twin, name, _quantized_layer(name, module, recipe, target))
    for name, module in list(twin.named_modules()):
        if isinstance(module, Attention | WindowAttention):
            grids = (None, None) if name in alone else _attention_grids(recipe, target)
            kind = QuantizedAttention if isinstance(module, Attention) else QuantizedWindowAttention
            _replace(twin, name, kind(module, AttentionQuantizers(*grids)))
        elif isinstance(module, SwinTransformerBlock) and module.attn_mask is not None:
            module.attn_mask = module.attn_mask.masked_fill(module.attn_mask < 0, _HIDDEN)
    return twin.requires_grad_(False)


def _replace(root: nn.Module, name: str, module: nn.Module) -> None:
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
