"""The names that a model can have: bundled, short, timm's, or `package.module:factory`.

Importing this module imports neither torch nor timm: the command line lists the names in its help.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Any

from fimaq_deploy.errors import UserError
from fimaq_deploy.models.bundled import BUNDLED
from fimaq_deploy.models.describe import require_supported
from fimaq_deploy.models.factory import current_directory_importable, find_factory

# The checkpoints behind the numbers that papers on quantized vision transformers report.
SHORT_NAMES: dict[str, str] = {
    "vit_t": "vit_tiny_patch16_224.augreg_in21k_ft_in1k",
    "vit_s": "vit_small_patch16_224.augreg_in21k_ft_in1k",
    "vit_b": "vit_base_patch16_224.augreg_in21k_ft_in1k",
    "vit_l": "vit_large_patch16_224.augreg_in21k_ft_in1k",
    "deit_t": "deit_tiny_patch16_224.fb_in1k",
    "deit_s": "deit_small_patch16_224.fb_in1k",
    "deit_b": "deit_base_patch16_224.fb_in1k",
    "swin_t": "swin_tiny_patch4_window7_224.ms_in1k",
    "swin_s": "swin_small_patch4_window7_224.ms_in1k",
    "swin_b": "swin_base_patch4_window7_224.ms_in22k_ft_in1k",
    "swin_b_384": "swin_base_patch4_window12_384.ms_in22k_ft_in1k",
}


def model_names() -> list[str]:
    """The bundled and the short names. Every timm ViT, DeiT or Swin name and `package.module:factory` work too."""
    return [*BUNDLED, *SHORT_NAMES]


def require_known(name: str) -> None:
    """Refuse a name that `load_model` does not know, before any weights are touched.

    Raises:
        UserError: unknown name or another architecture.
    """
    if ":" in name:
        with current_directory_importable():
            find_factory(name)
    elif name not in BUNDLED:
        find_timm_config(name, SHORT_NAMES.get(name, name))


def find_timm_config(name: str, full: str) -> Mapping[str, Any]:
    """timm's `pretrained_cfg` of a name. Unknown names and other architectures are refused before any allocation."""
    import timm
    import torch

    if not timm.is_model(full):
        raise UserError(f"unknown model '{name}'{nearest(name)}; `package.module:factory` loads a model of your own")
    architecture, _, tag = full.partition(".")
    tags = timm.list_pretrained(f"{architecture}.*")
    if tag and full not in tags:
        raise UserError(f"model '{name}': timm has no weights '{tag}'; expected one of {listed(tags)}")
    with torch.device("meta"):
        model = timm.create_model(full)
    require_supported(model, f"model '{name}'")
    return dict(model.pretrained_cfg)


def nearest(name: str) -> str:
    import timm

    families = [timm.list_models(module=module) for module in ("vision_transformer", "deit", "swin_transformer")]
    names = [*model_names(), *(each for family in families for each in family)]
    longer = [each for each in names if each.startswith(name.lower())]
    close = longer[:3] or get_close_matches(name.lower(), names, 3, 0.5)
    return f": did you mean {' or '.join(close)}?" if close else f": expected {listed(model_names())} or a timm name"


def listed(names: Iterable[str]) -> str:
    return ", ".join(names) or "none"
