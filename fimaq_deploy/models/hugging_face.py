"""Folders that `transformers` writes: `config.json` as a timm model, its image processor as timm's preprocessing.

A configuration says which architecture was trained. Those that timm has too are made as timm's, which calibration and
export know, and get their weights by `translations.hugging_face`. The tests compare outputs with `transformers`, which
nothing here needs.

What timm has not, or has with another head, `transformers_folder` makes.

Not covered: heads other than a linear one on the class token or the mean.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fimaq_deploy.errors import UserError, shown
from fimaq_deploy.models.transformers_folder import TYPES

if TYPE_CHECKING:
    from torch import nn

Config = Mapping[str, Any]
Create = Callable[..., "nn.Module"]
Build = Callable[[Mapping[str, Any]], tuple[Callable[..., "nn.Module"], dict[str, Any]]]

_ACTIVATIONS = {"gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh"}
_RESAMPLE = ("nearest", "lanczos", "bilinear", "bicubic", "box", "hamming")  # Pillow's numbers
_PREPROCESSORS = ("preprocessor_config.json", "processor_config.json")


def read_config(folder: Path) -> dict[str, Any]:
    """`config.json` of a model's folder.

    Raises:
        UserError: it is missing or no JSON object.
    """
    return _read_json(folder / "config.json")


def creator(folder: Path, config: Config) -> Create:
    """What makes the model that a folder's configuration describes; keywords are those of timm.

    Raises:
        UserError: an architecture that timm cannot make.
    """
    kind = config.get("model_type")
    build = _BUILDERS.get(str(kind))
    if build is None:
        raise UserError(
            f"folder {folder} holds a model of type {shown(kind)}: expected one of "
            f"{', '.join(dict.fromkeys((*_BUILDERS, *TYPES)))}, or a folder that timm wrote"
        )
    try:
        build(config)
    except (KeyError, TypeError, ValueError, ZeroDivisionError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"{folder}/config.json does not describe a {kind} model: {shown(reason)}") from error
    return partial(_create, build, config, preprocessing_of(folder))


def needs_transformers(config: Config) -> bool:
    """Whether a folder's model is one that timm cannot make, or makes with another head, and `transformers` can."""
    kind, asked = str(config.get("model_type")), map(str, config.get("architectures") or ())
    if kind not in TYPES or kind not in _BUILDERS:
        return kind in TYPES
    reads_mean = kind.startswith("dinov2") and any("Classification" in one for one in asked)
    return reads_mean or (kind == "swin" and bool(config.get("use_absolute_embeddings")))


def settings_of(folder: Path, config: Config) -> dict[str, Any]:
    """What timm calls `pretrained_cfg`, of a model that `transformers` made."""
    return {
        "architecture": str(config.get("model_type")),
        "label_names": label_names(config),
        **preprocessing_of(folder),
    }


def _create(
    build: Callable[[Config], tuple[Create, dict[str, Any]]], config: Config, said: Config, **asked: Any
) -> Any:
    make, settings = build(config)
    model: Any = make(**{"num_classes": _classes(config), **settings, **asked})
    head = "head.fc" if hasattr(model.head, "fc") else ("head", "head_dist") if hasattr(model, "head_dist") else "head"
    model.pretrained_cfg = {
        "architecture": config["model_type"],
        "classifier": head,
        "first_conv": "patch_embed.proj",
        "label_names": label_names(config),
        **said,
    }
    return model


# --- architectures ---


def _vit(config: Config) -> tuple[Create, dict[str, Any]]:
    from timm.models import VisionTransformer

    return VisionTransformer, {**_transformer(config), "mlp_ratio": _ratio(config), "global_pool": "token"}


def _deit(config: Config) -> tuple[Create, dict[str, Any]]:
    """With a teacher there are two heads, whose answers are averaged; else the second token only takes part."""
    from timm.models import VisionTransformer
    from timm.models.deit import VisionTransformerDistilled

    settings = {**_transformer(config), "mlp_ratio": _ratio(config), "global_pool": "token"}
    if "DeiTForImageClassificationWithTeacher" in (config.get("architectures") or ()):
        return VisionTransformerDistilled, settings
    return VisionTransformer, {**settings, "reg_tokens": 1}


def _dinov2(config: Config) -> tuple[Create, dict[str, Any]]:
    from timm.layers import SwiGLUPacked
    from timm.models import VisionTransformer
    from torch import nn

    width, registers = int(config["hidden_size"]), int(config.get("num_register_tokens", 0))
    registers = registers if config["model_type"] == "dinov2_with_registers" else 0
    settings = {**_transformer(config), "global_pool": "token", "init_values": 1.0}
    settings |= {"reg_tokens": registers, "no_embed_class": bool(registers)}
    inner = int(width * config.get("mlp_ratio", 4))
    if not config.get("use_swiglu_ffn"):
        return VisionTransformer, {**settings, "mlp_ratio": ratio_of(width, inner)}
    half = (int(inner * 2 / 3) + 7) // 8 * 8
    gated = {"mlp_layer": SwiGLUPacked, "act_layer": nn.SiLU, "mlp_ratio": ratio_of(width, 2 * half)}
    return VisionTransformer, {**settings, **gated}


def _swin(config: Config) -> tuple[Create, dict[str, Any]]:
    from timm.models import SwinTransformer

    if config.get("use_absolute_embeddings") or config.get("hidden_act", "gelu") != "gelu":
        raise ValueError("timm's Swin has no absolute positions and no activation but gelu")
    width = int(config["embed_dim"])
    settings = {
        "embed_dim": width,
        "depths": tuple(map(int, config["depths"])),
        "num_heads": tuple(map(int, config["num_heads"])),
        "window_size": int(config["window_size"]),
        "mlp_ratio": float(config.get("mlp_ratio", 4)),
    }
    return SwinTransformer, {**_patches(config), **_norms(config, 1e-5), **settings}


_BUILDERS: dict[str, Build] = {
    "vit": _vit,
    "vit_mae": _vit,
    "deit": _deit,
    "dinov2": _dinov2,
    "dinov2_with_registers": _dinov2,
    "swin": _swin,
}


def _transformer(config: Config) -> dict[str, Any]:
    return {
        **_patches(config),
        **_norms(config, 1e-12),
        "act_layer": _activation(config),
        "embed_dim": int(config["hidden_size"]),
        "depth": int(config["num_hidden_layers"]),
        "num_heads": int(config["num_attention_heads"]),
    }


def _patches(config: Config) -> dict[str, Any]:
    return {
        "img_size": _pair(config.get("image_size", 224)),
        "patch_size": _pair(config.get("patch_size", 16)),
        "in_chans": int(config.get("num_channels", 3)),
    }


def _norms(config: Config, eps: float) -> dict[str, Any]:
    from timm.layers import LayerNorm

    norm = partial(LayerNorm, eps=float(config.get("layer_norm_eps", eps)))
    return {"qkv_bias": bool(config.get("qkv_bias", True)), "norm_layer": norm}


def _activation(config: Config) -> Any:
    from timm.layers import get_act_layer

    name = str(config.get("hidden_act", "gelu"))
    found = get_act_layer(_ACTIVATIONS.get(name, name))
    if found is None:
        raise ValueError(f"an activation {name}")
    return found


def _pair(size: Any) -> tuple[int, int]:
    height, width = size if isinstance(size, (list, tuple)) else (size, size)
    return int(height), int(width)


def _ratio(config: Config) -> float:
    return ratio_of(int(config["hidden_size"]), int(config["intermediate_size"]))


def ratio_of(width: int, inner: int) -> float:
    """The ratio from which timm computes `inner` as int(width * ratio), whatever division rounds to."""
    ratio = inner / width
    return ratio if int(width * ratio) == inner else math.nextafter(ratio, math.inf)


def _classes(config: Config) -> int:
    labels = config.get("id2label")
    return len(labels) if isinstance(labels, Mapping) else int(config.get("num_labels", 2))


def label_names(config: Config) -> list[str] | None:
    """In the order of their numbers; None for the names that stand in for names."""
    labels = config.get("id2label")
    if not isinstance(labels, Mapping) or not all(str(number).isdecimal() for number in labels):
        return None
    named = {int(number): str(name) for number, name in labels.items()}
    if sorted(named) != list(range(len(named))) or all(name.startswith("LABEL_") for name in named.values()):
        return None
    return [named[number] for number in sorted(named)]


# --- preprocessing ---


def preprocessing_of(folder: Path) -> dict[str, Any]:
    """A folder's preprocessing in timm's words; empty where it says nothing.

    Raises:
        UserError: the file is no JSON object, or holds what no image can be prepared with.
    """
    file = next((folder / name for name in _PREPROCESSORS if (folder / name).is_file()), None)
    if file is None:
        return {}
    found = _read_json(file)
    try:
        return _in_timms_words(found.get("image_processor", found))
    except (TypeError, ValueError, KeyError, IndexError, AttributeError, ZeroDivisionError, OverflowError) as error:
        raise UserError(
            f"{file} does not say how images are prepared ({shown(str(error))}): give the folder again, or "
            "remove the file and use --mean, --std, --crop and --interpolation"
        ) from error


def _in_timms_words(said: Config) -> dict[str, Any]:
    return {"interpolation": _RESAMPLE[int(said.get("resample", 2))], **_normalisation(said), **_crop(said)}


def _normalisation(said: Config) -> dict[str, Any]:
    """timm's pixels are in [0, 1]; `transformers` multiplies bytes by a factor of its own, or by none."""
    factor = float(said.get("rescale_factor", 1 / 255)) if said.get("do_rescale", True) else 1.0
    scale = 255 * factor
    normalised = said.get("do_normalize", True)
    mean = said.get("image_mean") or (0.5,) * 3 if normalised else (0.0,)
    std = said.get("image_std") or (0.5,) * 3 if normalised else (1.0,)
    return {"mean": tuple(float(one) / scale for one in mean), "std": tuple(float(one) / scale for one in std)}


def _crop(said: Config) -> dict[str, Any]:
    size, cropped = said.get("size"), said.get("crop_size") if said.get("do_center_crop") else None
    keeps_shape = isinstance(size, Mapping) and "shortest_edge" in size
    side = _side(size) if said.get("do_resize", True) else None
    crop = _side(cropped)
    share = crop / side if side and crop and crop < side else 1.0
    return {"crop_pct": _exact(crop, side, share), "crop_mode": "center" if keeps_shape else "squash"}


def _side(size: Any) -> int | None:
    if isinstance(size, Mapping):
        return int(size.get("height") or size["shortest_edge"])
    return None if size is None else int(size)


def _exact(crop: int | None, side: int | None, share: float) -> float:
    """timm resizes to floor(crop / share): the share for which that is the side that is meant."""
    below = share < 1 and crop is not None and side is not None and math.floor(crop / share) < side
    return math.nextafter(share, 0) if below else share


def _read_json(file: Path) -> dict[str, Any]:
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"folder {file.parent} holds no {file.name}: expected the folder of a model") from None
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{file} cannot be read ({shown(str(error))}): download it again") from error
    if not isinstance(found, dict):
        raise UserError(f"{file} holds no JSON object: download it again")
    return found
