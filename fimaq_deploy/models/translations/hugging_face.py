"""Names of `transformers`: ViT, DeiT, ViT-MAE, DINOv2 with and without registers, and Swin.

Files have the names of version 4 (`encoder.layer.0.attention.attention.query`), modules of version 5 those of version 5
(`layers.0.attention.q_proj`); both are read. Numbers are checked against `transformers` in the tests.
"""

from __future__ import annotations

import re

from fimaq_deploy.models.translations.scheme import Rule, Scheme, State

_PROJECTIONS = {"query": "q", "key": "k", "value": "v", "q_proj": "q", "k_proj": "k", "v_proj": "v"}


def _next_stage(match: re.Match[str]) -> str:
    """timm merges patches where a stage begins, `transformers` where the one before ends."""
    return f"layers.{int(match[1]) + 1}.downsample.{match[2]}"


_WEIGHT = r"(weight|bias)"
_IN_A_BLOCK: tuple[tuple[str, str], ...] = (
    (rf"attention\.(?:output\.dense|o_proj)\.{_WEIGHT}", r"attn.proj.\2"),
    (rf"(?:layernorm_before|norm1)\.{_WEIGHT}", r"norm1.\2"),
    (rf"(?:layernorm_after|norm2)\.{_WEIGHT}", r"norm2.\2"),
    (rf"(?:intermediate\.dense|mlp\.fc1|mlp\.weights_in)\.{_WEIGHT}", r"mlp.fc1.\2"),
    (rf"(?:output\.dense|mlp\.fc2|mlp\.weights_out|mlp\.down_proj)\.{_WEIGHT}", r"mlp.fc2.\2"),
    (rf"mlp\.gate_proj\.{_WEIGHT}", r"mlp.gate.\2"),
    (rf"mlp\.up_proj\.{_WEIGHT}", r"mlp.up.\2"),
    (r"layer_scale([12])\.lambda1", r"ls\2.gamma"),
)
_SWIN_BLOCK: tuple[tuple[str, str], ...] = (
    (
        r"attention\.(?:self|relative_position_bias)\.(relative_position_bias_table)",
        r"attn.\2",
    ),
)


def _blocks(pattern: str, found: str, inside: tuple[tuple[str, str], ...]) -> list[Rule]:
    return [(rf"{pattern}\.{rule}", rf"{found}.{name}") for rule, name in inside]


def _rules() -> tuple[Rule, ...]:
    parts = "|".join(_PROJECTIONS)
    vit, swin = r"(?:encoder\.)?layers?\.(\d+)", r"encoder\.layers\.(\d+\.blocks\.\d+)"
    projection = rf"\.attention\.(?:attention\.|self\.)?(?P<part>{parts})\.(?P<kind>weight|bias)"
    return (
        (r"embeddings\.(cls_token)", r"\1"),
        (r"embeddings\.distillation_token", "dist_token"),
        (r"embeddings\.register_tokens", "reg_token"),
        (r"embeddings\.mask_token", None),
        (r"embeddings\.position_embeddings", "pos_embed"),
        (rf"embeddings\.patch_embeddings\.projection\.{_WEIGHT}", r"patch_embed.proj.\1"),
        (rf"embeddings\.norm\.{_WEIGHT}", r"patch_embed.norm.\1"),
        (rf"{swin}{projection}", lambda match: _projection_in(f"layers.{match[1]}.", match)),
        *_blocks(swin, r"layers.\1", (*_SWIN_BLOCK, *_IN_A_BLOCK)),
        (rf"{vit}{projection}", lambda match: _projection_in(f"blocks.{match[1]}.", match)),
        *_blocks(vit, r"blocks.\1", _IN_A_BLOCK),
        (r"encoder\.layers\.(\d+)\.downsample\.((?:reduction|norm)\.\w+)", _next_stage),
        (r".*\.relative_position_index", None),
        (rf"layernorm\.{_WEIGHT}", r"norm.\1"),
        (r"pooler\..*", None),
        *_HEAD,
    )


def _projection_in(block: str, match: re.Match[str]) -> str:
    return f"{block}attn.{_PROJECTIONS[match['part']]}.{match['kind']}"


_HEAD: tuple[Rule, ...] = (
    (rf"(?:cls_)?classifier\.{_WEIGHT}", r"head.\1"),
    (rf"distillation_classifier\.{_WEIGHT}", r"head_dist.\1"),
)


def _finish(state: State) -> State:
    """timm's Swin has another name for its head; with register tokens, its class token holds its own position."""
    found = dict(state)
    if any(name.startswith("layers.") for name in found):
        return {re.sub(r"^head\.", "head.fc.", name): tensor for name, tensor in found.items()}
    if "reg_token" in found and "pos_embed" in found and "cls_token" in found:
        found["cls_token"] = found["cls_token"] + found["pos_embed"][:, :1]
        found["pos_embed"] = found["pos_embed"][:, 1:]
    return found


HUGGING_FACE = Scheme("Hugging Face", "embeddings.patch_embeddings.projection.weight", _rules(), _HEAD, _finish)
