"""The names that a model can have: bundled, short, timm's, a folder, or `package.module:factory`.

Importing this module imports neither torch nor timm: the command line lists the names in its help.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Any, Literal

from fimaq_deploy.errors import UserError, shown
from fimaq_deploy.models.bundled import SHIPPED
from fimaq_deploy.models.describe import require_supported
from fimaq_deploy.models.factory import current_directory_importable, find_factory
from fimaq_deploy.models.paths import kind_of

# The checkpoints behind the numbers that papers on quantized vision transformers report, and encoders in common use.
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
    "swinv2_t": "swinv2_tiny_window8_256.ms_in1k",
    "beit_b": "beit_base_patch16_224.in22k_ft_in22k_in1k",
    "eva02_s": "eva02_small_patch14_336.mim_in22k_ft_in1k",
    "dinov2_s": "vit_small_patch14_dinov2.lvd142m",
    "dinov3_s": "vit_small_patch16_dinov3.lvd1689m",
    "siglip_b": "vit_base_patch16_siglip_224.webli",
}
# timm's modules whose models are accepted.
_TIMM_MODULES = (
    "vision_transformer",
    "vision_transformer_relpos",
    "deit",
    "swin_transformer",
    "swin_transformer_v2",
    "swin_transformer_v2_cr",
    "eva",
    "beit",
    "naflexvit",
)

Kind = Literal["bundled", "factory", "timm", "folder", "hub"]
_SOURCES = ("hf-hub", "hf_hub", "local-dir")  # timm's own prefixes
_WEIGHT_FILES = (".safetensors", ".pth", ".pt", ".bin", ".ckpt", ".tar", ".npz")
_LONGEST = 255


def model_names() -> list[str]:
    """The bundled and the short names. Every timm name of a known family and `package.module:factory` work too."""
    return [*SHIPPED, *SHORT_NAMES]


def is_onnx(name: str) -> bool:
    """Whether a name is meant as an ONNX file, which a build takes and `load_model` does not."""
    return name.endswith(".onnx") and ":" not in name


def full_name(name: str) -> str:
    """timm's name of a model that has a short one."""
    return SHORT_NAMES.get(name, name)


def kind_of_name(name: str) -> Kind:
    """What a user means by `--model`.

    Raises:
        UserError: it is empty or no name at all, or a file.
    """
    if not name.strip() or len(name) > 4096 or "\0" in name:
        raise UserError(f"unknown model '{shown(name)}': expected {listed(model_names())} or a timm name")
    if name in SHIPPED:
        return "bundled"
    if name.partition(":")[0] in _SOURCES:
        return "hub"
    if ":" in name and kind_of(name) is None:
        return "factory"
    return "folder" if _leads_to_a_folder(name) else "timm"


def _leads_to_a_folder(name: str) -> bool:
    """Whether it is a folder and no name that timm has."""
    if len(name) > _LONGEST and "/" not in name:
        return False
    kind = kind_of(name)
    if kind == "file":
        raise UserError(_not_a_model(name))
    if kind is None and "/" in name.rstrip("/"):
        raise UserError(
            f"no folder '{shown(name)}': expected a folder of a Hugging Face model, or hf-hub:{shown(name)} for the hub"
        )
    return kind == "folder" and name not in SHORT_NAMES and not _is_timm(name)


def _not_a_model(name: str) -> str:
    if name.endswith(".onnx"):
        return f"model '{shown(name)}' is an ONNX file: `build` takes it, this takes what it was exported from"
    hint = f"--model NAME --weights {shown(name)}" if name.endswith(_WEIGHT_FILES) else "its folder, or a name"
    return f"model '{shown(name)}' is a file, which does not say of what architecture: give {hint}"


def _is_timm(name: str) -> bool:
    import timm

    return timm.is_model(name)


def require_known(name: str) -> None:
    """Refuse a name that `load_model` does not know, before any weights are touched.

    Raises:
        UserError: unknown name or another architecture.
    """
    kind = kind_of_name(name)
    if kind == "factory":
        with current_directory_importable():
            find_factory(name)
    elif kind == "timm":
        find_timm_config(name, full_name(name))


def find_timm_config(name: str, full: str) -> Mapping[str, Any]:
    """timm's `pretrained_cfg` of a name. Unknown names and other architectures are refused before any allocation."""
    import timm
    import torch

    if not timm.is_model(full):
        raise UserError(
            f"unknown model '{shown(name)}'{nearest(name)}; `package.module:factory` loads a model of your own"
        )
    architecture, _, tag = full.partition(".")
    tags = timm.list_pretrained(f"{architecture}.*")
    if tag and full not in tags:
        raise UserError(f"model '{name}': timm has no weights '{tag}'; expected one of {listed(tags)}")
    with torch.device("meta"):
        model = timm.create_model(full)
    require_supported(model, f"model '{name}'")
    config: Any = model.pretrained_cfg
    return dict(config)


def nearest(name: str) -> str:
    import timm

    families = [timm.list_models(module=module) for module in _TIMM_MODULES]
    names = [*model_names(), *(each for family in families for each in family)]
    longer = [each for each in names if each.startswith(name.lower())]
    close = longer[:3] or get_close_matches(name.lower()[:_LONGEST], names, 3, 0.5)
    return f": did you mean {' or '.join(close)}?" if close else f": expected {listed(model_names())} or a timm name"


def listed(names: Iterable[str]) -> str:
    return ", ".join(names) or "none"
