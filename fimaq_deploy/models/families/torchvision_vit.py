"""torchvision's VisionTransformer, whose attention is torch's own `MultiheadAttention`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.vision_transformer import EncoderBlock, MLPBlock, VisionTransformer

from fimaq_deploy.errors import UserError
from fimaq_deploy.models.families.chain import Shape
from fimaq_deploy.models.families.family import expect
from fimaq_deploy.models.families.head import FirstToken, Head
from fimaq_deploy.models.families.parts import Attention, Block, Mlp, tokens
from fimaq_deploy.models.families.source import Source


class TorchvisionVit(Source):
    name = "torchvision-vit"
    kinds = ("torchvision VisionTransformer",)

    def claims(self, model: object) -> bool:
        return isinstance(model, VisionTransformer)

    def image_shape(self, model: Any) -> Shape:
        return model.conv_proj.in_channels, model.image_size, model.image_size

    def classes(self, model: Any) -> int:
        last = model.heads[-1] if isinstance(model.heads, nn.Sequential) and len(model.heads) else None
        return last.out_features if isinstance(last, nn.Linear) else 0

    def check(self, model: Any, what: str = "the model") -> None:
        if not isinstance(model.conv_proj, nn.Conv2d):
            raise UserError("module 'conv_proj': a stem of several convolutions is not understood")
        for name, block in model.encoder.layers.named_children():
            expect(f"encoder.layers.{name}", block, (EncoderBlock,))
            expect(f"encoder.layers.{name}.self_attention", block.self_attention, (nn.MultiheadAttention,))
            expect(f"encoder.layers.{name}.mlp", block.mlp, (MLPBlock,))

    def links(self, model: Any, shape: Shape) -> Mapping[str, nn.Module]:
        first = tokens(model.conv_proj, lambda images: _embedded(model, images), shape)
        blocks = {f"blocks.{number}": _block(one) for number, one in enumerate(model.encoder.layers)}
        *neck, classifier = model.heads if self.classes(model) else (model.heads, None)
        head = Head(model.encoder.ln, FirstToken(), nn.Sequential(*neck) if neck else None, classifier)
        return {"patch_embed": first, **blocks, "head": head}


def _embedded(model: Any, images: Tensor) -> Tensor:
    patches = model._process_input(images)
    return torch.cat((model.class_token.expand(len(images), -1, -1), patches), 1) + model.encoder.pos_embedding


def _block(block: Any) -> Block:
    attention = Attention(_qkv(block.self_attention), _proj(block.self_attention), block.num_heads)
    return Block(block.ln_1, attention, block.ln_2, Mlp(block.mlp[0], block.mlp[1], block.mlp[3]))


def _qkv(attention: nn.MultiheadAttention) -> nn.Linear:
    return _linear(attention.in_proj_weight, attention.in_proj_bias)


def _proj(attention: nn.MultiheadAttention) -> nn.Linear:
    """A plain Linear: `MultiheadAttention` has a class of its own that nothing may replace."""
    return _linear(attention.out_proj.weight, attention.out_proj.bias)


@torch.no_grad()
def _linear(weight: Tensor, bias: Tensor | None) -> nn.Linear:
    outputs, inputs = weight.shape
    made = nn.Linear(inputs, outputs, bias=bias is not None, device=weight.device, dtype=weight.dtype)
    made.weight.copy_(weight)
    if bias is not None:
        made.bias.copy_(bias)
    return made.requires_grad_(False)


FAMILY = TorchvisionVit()
