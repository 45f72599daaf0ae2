"""Names of torchvision's VisionTransformer and SwinTransformer. The tests compare the numbers with torchvision's."""

from __future__ import annotations

import re

from fimaq_deploy.models.translations.scheme import Rule, Scheme

_WEIGHT = r"(weight|bias)"
_MLP = {"0": "fc1", "3": "fc2", "linear_1": "fc1", "linear_2": "fc2"}
_LAYER = r"encoder\.layers\.encoder_layer_(\d+)"


def _mlp(match: re.Match[str]) -> str:
    return f"blocks.{match[1]}.mlp.{_MLP[match[2]]}.{match[3]}"


_VIT: tuple[Rule, ...] = (
    (r"class_token", "cls_token"),
    (rf"conv_proj\.{_WEIGHT}", r"patch_embed.proj.\1"),
    (r"encoder\.pos_embedding", "pos_embed"),
    (rf"{_LAYER}\.ln_([12])\.{_WEIGHT}", r"blocks.\1.norm\2.\3"),
    (rf"{_LAYER}\.self_attention\.in_proj_{_WEIGHT}", r"blocks.\1.attn.qkv.\2"),
    (rf"{_LAYER}\.self_attention\.out_proj\.{_WEIGHT}", r"blocks.\1.attn.proj.\2"),
    (rf"{_LAYER}\.mlp\.(0|3|linear_1|linear_2)\.{_WEIGHT}", _mlp),
    (rf"encoder\.ln\.{_WEIGHT}", r"norm.\1"),
    (rf"heads\.(?:head|0)\.{_WEIGHT}", r"head.\1"),
)


def _stage(number: str) -> int:
    """torchvision counts stages and the merging of patches between them together, after the patch embedding."""
    return int(number) // 2


def _in_a_stage(match: re.Match[str]) -> str:
    return f"layers.{_stage(match[1])}.blocks.{match[2]}.{match[3]}"


def _swin_mlp(match: re.Match[str]) -> str:
    return f"layers.{_stage(match[1])}.blocks.{match[2]}.mlp.{_MLP[match[3]]}.{match[4]}"


def _merging(match: re.Match[str]) -> str:
    return f"layers.{_stage(match[1])}.downsample.{match[2]}"


_SWIN: tuple[Rule, ...] = (
    (rf"features\.0\.0\.{_WEIGHT}", r"patch_embed.proj.\1"),
    (rf"features\.0\.2\.{_WEIGHT}", r"patch_embed.norm.\1"),
    (r".*\.relative_position_index", None),
    (rf"features\.(\d+)\.(\d+)\.mlp\.(0|3)\.{_WEIGHT}", _swin_mlp),
    (r"features\.(\d+)\.(\d+)\.((?:norm[12]|attn)\..+)", _in_a_stage),
    (r"features\.(\d+)\.((?:reduction|norm)\.(?:weight|bias))", _merging),
    (rf"head\.{_WEIGHT}", r"head.fc.\1"),
)

TORCHVISION_VIT = Scheme("torchvision", "conv_proj.weight", _VIT)
TORCHVISION_SWIN = Scheme("torchvision", "features.0.0.weight", _SWIN)
