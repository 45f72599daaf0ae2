"""What timm's families have in common: the attention, the stem, the head, and who reads the norms of a block."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from timm.layers import PatchEmbed
from timm.layers.attention import Attention
from timm.layers.mlp import GatedMlp, GluMlp, Mlp, SwiGLU
from timm.models.swin_transformer import WindowAttention
from torch import Tensor, nn

from fimaq_deploy.errors import UserError
from fimaq_deploy.models.families import head as ends
from fimaq_deploy.models.families import parts
from fimaq_deploy.models.families.attention import ExplicitAttention
from fimaq_deploy.models.families.layouts import swapped_halves
from fimaq_deploy.models.families.roles import Edge, NormReaders


class Head(Edge):
    """Tokens to logits: final norm, pooling and classifier; `features` stops before the classifier."""

    def forward(self, tokens: Tensor) -> Tensor:
        return self.model.forward_head(self.model.norm(tokens))

    def features(self, tokens: Tensor) -> Tensor:
        """The penultimate feature (batch, channels)."""
        return self.model.forward_head(self.model.norm(tokens), pre_logits=True)


class TimmAttention(ExplicitAttention):
    """timm's `Attention`."""

    def __init__(self, attention: Any) -> None:
        super().__init__(attention.qkv, attention.proj, attention.num_heads, attention.scale)
        self.q_norm, self.k_norm = attention.q_norm, attention.k_norm
        self.norm, self.gate = attention.norm, getattr(attention, "gate", None)
        self.quantize()

    def forward(self, x: Tensor, attn_mask: Tensor | None = None, is_causal: bool = False) -> Tensor:
        if attn_mask is not None or is_causal:
            raise NotImplementedError("attention masks are not used by image classifiers")
        q, k, v = self.split(x)
        y = self.norm(self.attend(self.q_norm(q), self.k_norm(k), v))
        if self.gate is not None:
            y = y * self.gate(x).sigmoid()
        return self.proj(y)


def expect_plain_stem(model: Any, what: str) -> None:
    """Refuse hybrids.

    Raises:
        UserError: names the class of the stem.
    """
    if not isinstance(model.patch_embed, PatchEmbed):
        stem = type(model.patch_embed).__name__
        raise UserError(f"{what} has a {stem} stem: expected a plain patch embedding; hybrid models are not supported")


def embedded_shape(embed: Any) -> tuple[int, int, int]:
    """(C, H, W) of a patch embedding in timm's form, quantized or not.

    Raises:
        UserError: it has no fixed image size.
    """
    if embed.img_size is None:
        raise UserError("the model has no fixed image size (patch_embed.img_size is None): create it with img_size=...")
    height, width = embed.img_size
    kernels = next(tensor for tensor in embed.proj.state_dict().values() if tensor.ndim == 4)
    return kernels.shape[1], height, width


def block_norms(prefix: str, block: Any, *, can_shift: bool = True) -> Iterator[NormReaders]:
    """The norms of a block of `norm1`, `attn`, `norm2` and `mlp` whose readers are known to be Linear layers.

    can_shift: whether only Linear layers see norm1's offset.
    """
    attention, mlp = _attention_inputs(block.attn), _mlp_inputs(block.mlp)
    if attention:
        yield NormReaders(f"{prefix}norm1", block, "norm1", attention, can_shift)
    if mlp:
        yield NormReaders(f"{prefix}norm2", block, "norm2", mlp)


def _attention_inputs(attention: Any) -> tuple[nn.Linear, ...]:
    if type(attention) not in (Attention, WindowAttention):
        return ()
    gate = getattr(attention, "gate", None)
    return (attention.qkv,) if gate is None else (attention.qkv, gate)


def _mlp_inputs(mlp: Any) -> tuple[nn.Linear, ...]:
    if type(mlp) is SwiGLU:
        return (mlp.fc1_g, mlp.fc1_x)
    known = type(mlp) in (Mlp, GluMlp, GatedMlp) and isinstance(mlp.fc1, nn.Linear)
    return (mlp.fc1,) if known else ()


def chain_mlp(mlp: nn.Module) -> parts.Mlp | parts.GatedMlp:
    """timm's `Mlp`, `GluMlp` or `SwiGLU` as a part of a chain."""
    own: Any = mlp
    if type(mlp) is SwiGLU:
        return parts.GatedMlp(own.fc1_g, own.fc1_x, own.act, own.fc2, own.norm)
    if type(mlp) is GluMlp:
        return parts.PackedGatedMlp(swapped_halves(own.fc1) if own.gate_last else own.fc1, own.act, own.fc2, own.norm)
    return parts.Mlp(own.fc1, own.act, own.fc2, own.norm)


def chain_head(model: Any) -> ends.Head:
    """The end of timm's plain transformers: norm, pooling, norm, classifier."""
    attending = getattr(model, "attn_pool", None)
    pooling = ends.pool(model.global_pool, model.num_prefix_tokens) if attending is None else ends.Kept(attending)
    return ends.Head(model.norm, pooling, model.fc_norm, model.head)
