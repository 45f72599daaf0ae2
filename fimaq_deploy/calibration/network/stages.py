"""A model as a chain of stages: `logits = stages[-1](... stages[0](images))`.

The patch embedding, every transformer block, every Swin patch merging and the head. Reconstruction walks this chain,
and parity compares runtimes at its joints. A structure that is not understood is an error that names the module, never
a wrong answer.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

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

from fimaq_deploy.errors import UserError


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
