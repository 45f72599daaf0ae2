"""timm's Eva: EVA-02, DINOv3, Perception Encoders, RoPE-ViT, Sapiens2. A ViT with rotary positions and much else."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from timm.layers import GluMlp, Mlp, SwiGLU
from timm.layers.attention import AttentionRope
from timm.models import eva
from timm.models.eva import Eva, EvaAttention, EvaBlock, EvaBlockPostNorm
from torch import Tensor, nn

from fimaq_deploy.models.families import parts
from fimaq_deploy.models.families.chain import Shape
from fimaq_deploy.models.families.family import expect
from fimaq_deploy.models.families.layouts import grouped_rows, halves, in_halves
from fimaq_deploy.models.families.parts import Attention, Block, PostNormBlock, Rotary, joined, with_bias
from fimaq_deploy.models.families.source import Source
from fimaq_deploy.models.families.timm import chain_head, chain_mlp, embedded_shape, expect_plain_stem


class TimmEva(Source):
    name = "eva"
    kinds = ("timm Eva",)

    def claims(self, model: object) -> bool:
        return isinstance(model, Eva)

    def image_shape(self, model: Any) -> Shape:
        return embedded_shape(model.patch_embed)

    def check(self, model: Any, what: str = "the model") -> None:
        expect_plain_stem(model, what)
        for number, block in enumerate(model.blocks):
            name = f"blocks.{number}"
            expect(name, block, (EvaBlock, EvaBlockPostNorm))
            expect(f"{name}.attn", block.attn, (EvaAttention, AttentionRope))
            expect(f"{name}.mlp", block.mlp, (Mlp, GluMlp, SwiGLU))
        super().check(model, what)

    def links(self, model: Any, shape: Shape) -> Mapping[str, nn.Module]:
        grid = model.patch_embed.dynamic_feat_size(shape[1:])
        blocks = {
            f"blocks.{number}": _block(block, _rotary(model, number, grid)) for number, block in enumerate(model.blocks)
        }
        first = parts.tokens(
            model.patch_embed.proj,
            lambda images: model._pos_embed(model.patch_embed(images))[0],
            shape,
            positions=model.pos_embed is not None,
            norm=model.norm_pre,
        )
        return {"patch_embed": first, **blocks, "head": chain_head(model)}

    def translated(self, model: Any, state: dict[str, Tensor]) -> dict[str, Tensor]:
        return eva.checkpoint_filter_fn(dict(state), model)


def _rotary(model: Any, number: int, grid: tuple[int, int]) -> Rotary | None:
    """The positions of one block: all blocks have the same ones, or each has learned its own."""
    if model.rope is None:
        return None
    fixed = hasattr(model.rope, "feat_shape") and not model.dynamic_img_size
    embed = model.rope.get_embed() if fixed else model.rope.get_embed(shape=grid)
    sin, cos = (embed[number] if model.rope_mixed else embed).chunk(2, -1)
    if not model.blocks[number].attn.rotate_half:
        order = halves(sin.shape[-1])
        sin, cos = sin[..., order], cos[..., order]
    return Rotary(sin, cos, model.num_prefix_tokens)


def _block(block: Any, rotary: Rotary | None) -> Block:
    attention, mlp = _attention(block.attn, rotary), chain_mlp(block.mlp)
    if isinstance(block, EvaBlockPostNorm):
        return PostNormBlock(block.norm1, attention, block.norm2, mlp)
    return Block(block.norm1, attention, block.norm2, mlp, scales=(block.gamma_1, block.gamma_2))


def _attention(attention: Any, rotary: Rotary | None) -> Attention:
    heads, qkv, norms = attention.num_heads, attention.qkv, (attention.q_norm, attention.k_norm)
    if qkv is None:
        groups = getattr(attention, "num_kv_groups", 1)
        shared = (grouped_rows(one, heads // groups, groups) for one in (attention.k_proj, attention.v_proj))
        qkv = joined(attention.q_proj, *shared)
    elif getattr(attention, "q_bias", None) is not None:
        qkv = with_bias(qkv, attention.q_bias, attention.k_bias, attention.v_bias)
    if rotary is not None and not attention.rotate_half:
        qkv, norms = in_halves(qkv, heads, norms)
    return Attention(
        qkv,
        attention.proj,
        heads,
        q_norm=norms[0],
        k_norm=norms[1],
        rotary=rotary,
        norm=attention.norm,
        gate=attention.gate,
    )


FAMILY = TimmEva()
