"""The encoder inside somebody's model: where it is, and the model with something else in its place.

A detector, a segmenter or a depth estimator is an encoder of a known family and a rest of its own. What is quantized is
the encoder; the rest is neither read nor changed.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from functools import cache
from itertools import chain
from typing import Any

from torch import Tensor, nn

from fimaq_deploy.errors import UserError, shown
from fimaq_deploy.models.describe import ModelInfo, configured, describe_model
from fimaq_deploy.models.detectors import label_range
from fimaq_deploy.models.families import families, family_of, find_family, known_kinds
from fimaq_deploy.models.families.family import Family
from fimaq_deploy.models.families.maps import Maps
from fimaq_deploy.models.families.reply import Reply
from fimaq_deploy.models.families.wrapped import Wrapped
from fimaq_deploy.models.hugging_face import label_names
from fimaq_deploy.models.preprocessing import Preprocessing
from fimaq_deploy.models.readers import reader_of
from fimaq_deploy.models.trial import try_out

_COMPUTING = ("forward", "get_intermediate_layers")  # how methods begin that run an encoder without calling it
_UNCROPPED = (1.0, "squash")  # what timm calls crop_pct and crop_mode
_TOLD = 6  # parts or encoders that a message names

# Of images (N, C, H, W) that an encoder gets: one tensor, several by name, or a dictionary of arrays.
Run = Callable[[Tensor], Any]


@dataclass(frozen=True, eq=False)
class Inside:
    """An encoder and its place. name: of the module within the model; empty where the model is the encoder itself."""

    name: str
    encoder: nn.Module

    @property
    def family(self) -> Family:
        return family_of(self.encoder)


def find_backbone(model: nn.Module, path: str | None = None) -> Inside:
    """The encoder that a path names, or the one that is inside; wrappers around an encoder are passed through.

    path: of a module of the model, as `named_modules` has it: the encoder, or what holds one.

    Raises:
        UserError: there is no such module, it holds no encoder that we know, or several.
    """
    if not isinstance(model, nn.Module):
        raise UserError(f"the model is a {type(model).__name__}: expected a torch.nn.Module")
    root = _named(model, path)
    found = list(_known(root, path or "", _encoders(), set()))
    if not found:
        raise nothing_inside(root, f"module '{path}'" if path else "the model")
    if len(found) > 1:
        raise UserError(
            f"{len(found)} encoders are inside of the model: name one as backbone: "
            f"{', '.join(f'{each.name} ({type(each.encoder).__name__})' for each in found[:_TOLD])}"
        )
    return found[0]


def nothing_inside(model: nn.Module, what: str) -> UserError:
    """Why a model in which no encoder is known cannot be quantized, with what is in it. what: it in the message."""
    reader, kind = reader_of(model), type(model).__name__
    if reader is not None:
        return UserError(reader.told(what, model))
    return UserError(
        f"{what} is a {kind}: expected a {known_kinds()}, or a model with one of these inside; it has {_parts(model)}"
    )


def encoder_at(model: nn.Module, place: str) -> Inside:
    """The encoder at the place where `find_backbone` found it.

    Raises:
        UserError: there is none.
    """
    found = find_backbone(model, place) if place else Inside("", model)
    if found.name != place or (not place and needs_search(model)):
        raise UserError(f"the model, a {type(model).__name__}, has no encoder as its module '{place}': another model?")
    return found


def needs_search(model: nn.Module) -> bool:
    """Whether a model is no encoder itself, so that one inside of it is meant."""
    return find_family(model) is None


def holds_encoders(model: nn.Module) -> bool:
    """Whether a model that is no encoder itself has one or several inside."""
    return needs_search(model) and any(True for _ in _known(model, "", _encoders(), set()))


def _encoders() -> list[Family]:
    return [family for family in families() if not isinstance(family, Wrapped)]


def _named(model: nn.Module, path: str | None) -> nn.Module:
    if path is None:
        return model
    try:
        return model.get_submodule(path)
    except AttributeError:
        names = [name for name, _ in model.named_modules() if name]
        near = get_close_matches(path, names, 3, 0.4) or get_close_matches(path.split(".")[-1], names, 3, 0.0)
        raise UserError(f"backbone '{shown(path)}': the model has no such module; nearest: {', '.join(near)}") from None


def _known(module: nn.Module, name: str, known: Sequence[Family], seen: set[int]) -> Iterator[Inside]:
    """The outermost modules that a family claims."""
    if id(module) in seen:
        return
    seen.add(id(module))
    if any(family.claims(module) for family in known):
        yield Inside(name, module)
        return
    for leaf, part in module.named_children():
        yield from _known(part, f"{name}.{leaf}" if name else leaf, known, seen)


def _parts(module: nn.Module) -> str:
    children = [f"{name} ({type(part).__name__})" for name, part in module.named_children()]
    more = f" and {len(children) - _TOLD} more" if len(children) > _TOLD else ""
    return ", ".join(children[:_TOLD]) + more if children else "no parts"


class Standing(nn.Module):
    """What stands in an encoder's place: it gets what the encoder gets, and answers in the encoder's form.

    run: of the images. A module belongs to the model then. Everything else that the rest asks of the encoder, such as
    its channels or its configuration, is the encoder's own.
    """

    def __init__(self, encoder: nn.Module, run: Run) -> None:
        super().__init__()
        self._hidden = (encoder,)  # a tuple hides it from module traversal: its numbers are not the model's any more
        self.run = run
        self.train(encoder.training)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        images = images_of(args, kwargs)
        found = self.run(images)
        encoder = self._hidden[0]
        several = list(found) if isinstance(found, (list, tuple)) else [found]
        tensors = _ordered(found, encoder) if isinstance(found, Mapping) else several
        reply = family_of(encoder).reply(encoder, [_tensor(each, images) for each in tensors])
        return reply.without(unasked(encoder, kwargs)) if isinstance(reply, Reply) else reply

    def forward_with_filtered_kwargs(self, *args: Any, **kwargs: Any) -> Any:
        """How some models of `transformers` call their backbone: the encoder's own would run the encoder."""
        return self(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name == "_hidden" or "_hidden" not in self.__dict__:
                raise
        encoder = self._hidden[0]
        if name.startswith(_COMPUTING) and inspect.ismethod(getattr(encoder, name, None)):
            raise UserError(
                f"the rest of the model calls {name} of its encoder ({type(encoder).__name__}), which would run the "
                "encoder that was replaced: expected it to call the module itself"
            )
        return getattr(encoder, name)


def unasked(encoder: nn.Module, kwargs: Mapping[str, Any]) -> list[str]:
    """What an encoder of `transformers` has a name for in its answer, and leaves empty unless it is asked for it."""
    config, asked = getattr(encoder, "config", None), ("hidden_states", "attentions")
    return [one for one in asked if not (kwargs.get(f"output_{one}") or getattr(config, f"output_{one}", False))]


def images_of(args: Sequence[Any], kwargs: Mapping[str, Any]) -> Tensor:
    """The images (N, C, H, W) among what an encoder is called with.

    Raises:
        UserError: there are none, or several tensors that could be.
    """
    given = [each for each in chain(args, kwargs.values()) if isinstance(each, Tensor) and each.is_floating_point()]
    found = [each for each in given if each.ndim == 4]
    if len(found) != 1:
        told = ", ".join(str(tuple(each.shape)) for each in given) or "no tensors"
        raise UserError(f"the encoder gets {told}: expected one tensor of images (N, C, H, W)")
    return found[0]


def splice(model: nn.Module, engine: Any, backbone: str | None = None) -> nn.Module:
    """The model with a file's engine in the place of its encoder: what a build's encoder is deployed in.

    engine: of `fimaq_deploy.load_engine`, a module, or a function from arrays (N, C, H, W) to arrays. backbone: where
        the encoder is; None finds it.

    Raises:
        UserError: there is no such place.
    """
    return spliced(model, find_backbone(model, backbone), _running(engine))


def _running(engine: Any) -> Run:
    """What answers tensors, or arrays by name."""
    if isinstance(engine, nn.Module):
        return engine
    outputs = getattr(engine, "outputs", engine)
    return lambda images: outputs(images.detach().cpu().float().numpy())


def describe_whole(
    model: nn.Module,
    inside: Inside,
    name: str = "",
    preprocessing: Preprocessing | None = None,
    size: tuple[int, int] | None = None,
) -> ModelInfo:
    """What a model with an encoder inside reads, as `describe_model` says of an encoder.

    torchvision's detection models take pixels in [0, 1] and normalise them themselves. An image is resized as a whole,
    unless the model's own `pretrained_cfg` says how it is cropped: what is at its edges counts as much as what is in
    the middle. Only what answers one vector is shown images as the encoder's own classifier was.
    size: (height, width) of images, where the model does not say.

    Raises:
        UserError: nothing says how large images are, or the preprocessing is not for them.
    """
    if inside.encoder is model:
        return describe_model(model, name, preprocessing)
    config = _config(model, inside)
    shape = _shape(inside, config, size)
    names = config.get("label_names") or ()
    info = configured(config, name or config.get("architecture") or type(model).__name__, shape, len(names))
    trial = cache(lambda: try_out(model, shape))
    if (info.crop_pct, info.crop_mode) != _UNCROPPED and not _asks_for_a_crop(model) and trial().about_places:
        info = replace(info, crop_pct=_UNCROPPED[0], crop_mode=_UNCROPPED[1])
    info = replace(info, labels=label_range(model) or trial().labels)
    return replace(info, **preprocessing.changes(shape[0])) if preprocessing else info


def _config(model: nn.Module, inside: Inside) -> Mapping[str, Any]:
    own = getattr(model, "pretrained_cfg", None)
    if own:
        return {"label_names": _names(model), **own}
    if hasattr(getattr(model, "transform", None), "image_mean"):
        return {"mean": (0.0,), "std": (1.0,), "crop_pct": 1.0, "crop_mode": "squash"}
    encoder = getattr(inside.encoder, "pretrained_cfg", None) or {"crop_pct": 1.0}
    return {**encoder, "label_names": _names(model)}  # those of the encoder's were of its own classifier


def _asks_for_a_crop(model: nn.Module) -> bool:
    own = getattr(model, "pretrained_cfg", None) or {}
    return "crop_mode" in own or own.get("crop_pct", 1.0) < 1


def _names(model: nn.Module) -> list[str] | None:
    """As a model of `transformers` calls its labels."""
    return label_names({"id2label": getattr(getattr(model, "config", None), "id2label", None)})


def _shape(inside: Inside, config: Mapping[str, Any], size: tuple[int, int] | None) -> tuple[int, int, int]:
    proj = next(one for one in inside.encoder.modules() if isinstance(one, nn.Conv2d))
    if size is not None:
        return (proj.in_channels, *size)
    try:
        return inside.family.image_shape(inside.encoder)
    except UserError:
        if "input_size" not in config:
            raise UserError("nothing says how large the model's images are: give --image-size") from None
        return tuple(config["input_size"])


def _ordered(found: Mapping[str, Any], encoder: nn.Module) -> list[Any]:
    """Outputs in the encoder's order, whatever the order that an engine has them in."""
    family = family_of(encoder)
    names = family.outputs(encoder) if isinstance(family, Maps) else tuple(found)
    return [found[name] for name in names] if set(names) == set(found) else list(found.values())


def _tensor(found: Any, images: Tensor) -> Tensor:
    import torch

    return (found if isinstance(found, Tensor) else torch.from_numpy(found)).to(images)


def spliced(model: nn.Module, inside: Inside, run: Run) -> nn.Module:
    """A copy of the model in eval mode with something else in the encoder's place; all other numbers are shared.

    run: as of `Standing`.
    """
    standing = Standing(inside.encoder, run)
    if inside.encoder is model:
        return standing.eval()
    shared: dict[int, Any] = {id(tensor): tensor for tensor in chain(model.parameters(), model.buffers())}
    return copy.deepcopy(model, {**shared, id(inside.encoder): standing}).eval()
