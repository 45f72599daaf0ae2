"""What a module reads, and whether it is one that we know.

Preprocessing follows timm's convention: it lies in the module's `pretrained_cfg` dictionary. A model of your own may
carry one (`mean`, `std`, `interpolation`, `crop_pct`, `crop_mode`); the image size, channels and classes are always
read from the module itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from fimaq_deploy.contract import Contract, Output, resized
from fimaq_deploy.errors import UserError
from fimaq_deploy.models.families import family_of, find_family
from fimaq_deploy.models.preprocessing import Preprocessing

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class ModelInfo:
    """What a model reads and how images are prepared for it.

    input_shape: (channels, height, width).
    mean, std: one number a channel; an input is (pixel in [0, 1] - mean) / std.
    crop_pct: the share of the resized image's shorter side that the centre crop keeps.
    classes: the number of logits; 0 for a model without a classifier.
    class_names: what its classes are called, in their order; empty where nobody says.
    labels: those that a detector can give to objects; None where nobody says.
    bit_depth: of image files with more than 8 bits, where they hold fewer than they declare.
    """

    name: str
    input_shape: tuple[int, int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: str
    crop_pct: float
    crop_mode: str
    classes: int
    class_names: tuple[str, ...] = ()
    bit_depth: int | None = None
    labels: range | None = None

    def preprocessing(self) -> dict[str, Any]:
        """How an image becomes an input, as a document: whoever deploys the model has to do the same."""
        kept = ("mean", "std", "interpolation", "crop_pct", "crop_mode", "bit_depth")
        size = {"channels": self.input_shape[0], "height": self.input_shape[1], "width": self.input_shape[2]}
        return {**size, "pixel_scale": 1 / 255, **{name: getattr(self, name) for name in kept}}

    def contract(self, kinds: Iterable[str] = ()) -> Contract:
        """The same as the contract that a file carries. kinds: of its outputs, in their order."""
        return Contract(
            shape=self.input_shape,
            mean=self.mean,
            std=self.std,
            resize=resized(self.input_shape, self.crop_pct),
            interpolation=self.interpolation,
            crop_mode=self.crop_mode,
            bit_depth=self.bit_depth,
            outputs=tuple(Output(kind=kind) for kind in kinds),
            classes=self.class_names if len(self.class_names) == self.classes else (),
        )


def describe_model(model: nn.Module, name: str = "", preprocessing: Preprocessing | None = None) -> ModelInfo:
    """What the module reads. `name` defaults to timm's name for it, or to its class.

    preprocessing: what the user says of it instead.

    Without a `pretrained_cfg` the whole image is resized bicubically and normalised with the ImageNet statistics, or
    to [-1, 1] where there are not 3 channels.

    Raises:
        UserError: the module is of no known family, has no fixed image size, or the preprocessing is not for it.
    """
    from fimaq_deploy.models.families.wrapped import innermost

    require_supported(model)
    model = innermost(model)
    config: Mapping[str, Any] = dict(getattr(model, "pretrained_cfg", None) or {"crop_pct": 1.0})
    shape, classes = image_shape(model), family_of(model).classes(model)
    info = configured(config, name or config.get("architecture") or type(model).__name__, shape, classes)
    return replace(info, **preprocessing.changes(shape[0])) if preprocessing else info


def contract_of(model: nn.Module, shape: tuple[int, int, int]) -> Contract | None:
    """The contract of a module, quantized or not, as far as it says so itself: None where it has no `pretrained_cfg`.

    shape: (C, H, W) of its images.
    """
    config = getattr(model, "pretrained_cfg", None) or getattr(getattr(model, "model", None), "pretrained_cfg", None)
    if not isinstance(config, Mapping) or "mean" not in config:
        return None
    names = _class_names(config)
    return replace(configured(config, "", shape, len(names)).contract(), classes=names)


def configured(config: Mapping[str, Any], name: str, shape: tuple[int, int, int], classes: int) -> ModelInfo:
    """What a configuration of timm's form says of a model that reads images of this shape."""
    from timm.data import resolve_data_config

    resolved = resolve_data_config(pretrained_cfg=config)
    known = shape[0] == 3 or "mean" in config
    return ModelInfo(
        name=name,
        input_shape=shape,
        mean=per_channel(resolved["mean"] if known else (0.5,), shape[0]),
        std=per_channel(resolved["std"] if known else (0.5,), shape[0]),
        interpolation=resolved["interpolation"],
        crop_pct=float(resolved["crop_pct"]),
        crop_mode=resolved["crop_mode"],
        classes=classes,
        class_names=_class_names(config),
    )


def _class_names(config: Mapping[str, Any]) -> tuple[str, ...]:
    """As timm and `transformers` keep them in a configuration, if at all."""
    names = config.get("label_names") or ()
    return tuple(map(str, names)) if isinstance(names, (list, tuple)) else ()


def require_supported(model: object, what: str = "the model") -> None:
    """Refuse a model that no family knows, or whose structure its family does not understand.

    Raises:
        UserError: names the class, or the first module that is not understood.
    """
    if find_family(model) is None:
        from fimaq_deploy.models.readers import reader_of

        reader = reader_of(model)
        if reader is not None:
            raise UserError(reader.told(what, model))
    family_of(model, what).check(model, what)  # type: ignore[arg-type]


def require_finite(model: nn.Module) -> None:
    """Refuse weights that are NaN or infinite.

    Raises:
        UserError: names the first such tensor.
    """
    for key, value in model.state_dict().items():
        bad = int((~value.isfinite()).sum())
        if bad:
            raise UserError(
                f"weight {key}: {bad} of {value.numel()} values are NaN or infinite; load a checkpoint without them"
            )


def image_shape(model: nn.Module) -> tuple[int, int, int]:
    """(C, H, W) of the images that a model takes, quantized or not.

    Raises:
        UserError: no family knows it, or it has no fixed image size.
    """
    return family_of(model).image_shape(model)


def per_channel(values: Iterable[float], channels: int) -> tuple[float, ...]:
    """One number a channel; the average for every channel where their number differs."""
    found = tuple(float(value) for value in values)
    return found if len(found) == channels else (sum(found) / len(found),) * channels
