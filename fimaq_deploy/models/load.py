"""A name, a folder or a factory in, a module in eval mode with its weights out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fimaq_deploy.errors import UserError, shown
from fimaq_deploy.models.bundled import INSIDE, SHIPPED
from fimaq_deploy.models.checkpoint import State, read_checkpoint, split_choice
from fimaq_deploy.models.describe import require_finite, require_supported
from fimaq_deploy.models.devices import find_device
from fimaq_deploy.models.factory import call_factory, current_directory_importable
from fimaq_deploy.models.families import family_of
from fimaq_deploy.models.fit import Sizes, options_for, resampled
from fimaq_deploy.models.hub import hub_folder, load_pretrained
from fimaq_deploy.models.hugging_face import (
    creator,
    needs_transformers,
    preprocessing_of,
    read_config,
    settings_of,
)
from fimaq_deploy.models.names import Kind, find_timm_config, full_name, kind_of_name
from fimaq_deploy.models.paths import kind_of
from fimaq_deploy.models.transformers_folder import make_from_folder
from fimaq_deploy.models.weights import find_weights

if TYPE_CHECKING:
    import torch
    from torch import nn

Weights = str | Path


@dataclass
class Loaded:
    """A model in eval mode, and what a report should say about how it was made."""

    model: nn.Module
    notes: tuple[str, ...] = ()


def load_model(
    name: str,
    weights: Weights = "pretrained",
    *,
    device: str | torch.device = "cpu",
    seed: int = 0,
    image_size: tuple[int, int] | None = None,
    in_chans: int | None = None,
) -> nn.Module:
    """A model in eval mode, float32, with its weights.

    name: a bundled name, a short name, a timm name, `hf-hub:OWNER/NAME` or `local-dir:FOLDER` as timm has them, a
        Hugging Face folder, or `package.module:factory`, which is called without arguments and may also live in the
        current directory.
    weights: "pretrained" (for a factory: as it returns them), "random" (drawn from `seed`), or a checkpoint's path,
        read without running code. The tensors of the model are found under any wrapper and prefix; `FILE#SET` names one
        of several sets. A timm name takes the number of classes, the channels and the image size of the checkpoint.
    image_size, in_chans: (height, width) and channels to make a model of timm or of a folder with.

    Raises:
        UserError: unknown name or another architecture; a checkpoint that is missing, corrupt, of another architecture
            or not finite; pretrained weights that cannot be downloaded; an unknown or absent device.
    """
    return open_model(name, weights, device=device, seed=seed, sizes=Sizes(image_size, in_chans)).model


def open_model(
    name: str,
    weights: Weights = "pretrained",
    *,
    device: str | torch.device = "cpu",
    seed: int = 0,
    sizes: Sizes | None = None,
) -> Loaded:
    """As `load_model`, with what is to be said about it: which weights were taken, and what was done to them.

    sizes: the image size of a factory's model that has an encoder inside is that of the images that it is given.
    """
    place, kind = find_device(device), kind_of_name(name)
    if kind == "bundled" and sizes and sizes.options():
        raise UserError(_OWN_SIZES.format(name=name))
    loaded = _OPENERS[kind](name, weights, seed, sizes or Sizes())
    require_finite(loaded.model)
    notes = (*loaded.notes, *_half_note(loaded.model), *_size_note(loaded.model))
    return Loaded(loaded.model.to(place).float().eval(), notes)


def _open_bundled(name: str, weights: Weights, seed: int, _: Sizes) -> Loaded:
    bundled = SHIPPED[name]
    model = seeded(bundled.create, seed)
    half = (0.5,) * bundled.channels
    config = {"architecture": name, "mean": half, "std": half, "crop_pct": 1.0}
    if name in INSIDE:  # what lies at the edges of a picture is to be found too
        config["crop_mode"] = "squash"
    model.pretrained_cfg = {**config, "label_names": bundled.class_names}  # type: ignore[assignment]
    if weights == "random":
        return Loaded(model)
    return _with_checkpoint(model, name, bundled.weights if weights == "pretrained" else weights)


_OWN_SIZES = "model {name} decides its own image size and channels: leave --image-size and --in-chans out"


def _open_factory(name: str, weights: Weights, seed: int, sizes: Sizes) -> Loaded:
    if weights == "random":
        raise UserError(
            f"weights 'random' for {name}: a factory decides its own; use 'pretrained' (as it returns them)"
        )
    from fimaq_deploy.models.families.wrapped import transparent
    from fimaq_deploy.models.inside import holds_encoders, needs_search, nothing_inside

    with current_directory_importable():
        model = seeded(lambda: call_factory(name), seed)
    whole = holds_encoders(model)
    if not whole:
        if needs_search(model):
            raise nothing_inside(model, name)
        require_supported(model, name)
    if sizes.options() and not (whole and sizes.in_chans is None):
        raise UserError(_OWN_SIZES.format(name=name))
    model = transparent(model)
    return Loaded(model) if weights == "pretrained" else _with_checkpoint(model, name, weights)


def _open_timm(name: str, weights: Weights, seed: int, sizes: Sizes) -> Loaded:
    import timm

    full = full_name(name)
    config = find_timm_config(name, full)
    create = partial(timm.create_model, full)
    if weights != "pretrained":
        return _made(name, create, weights, seed, sizes)
    if sizes.options():
        on_meta(lambda: _created(name, create, sizes.options()))
    return Loaded(load_pretrained(full, config, sizes.options()))


def _open_hub(name: str, weights: Weights, seed: int, sizes: Sizes) -> Loaded:
    source, _, place = name.partition(":")
    folder = place if source == "local-dir" else str(hub_folder(place))
    return _open_folder(folder, weights, seed, sizes)


def _open_folder(name: str, weights: Weights, seed: int, sizes: Sizes) -> Loaded:
    import timm

    folder = Path(name)
    if kind_of(name) != "folder":
        raise UserError(f"no folder '{shown(name)}': expected the folder of a model, with its config.json")
    config = read_config(folder)
    if needs_transformers(config):
        return _open_with_transformers(folder, config, weights, seed, sizes)
    create = partial(timm.create_model, f"local-dir:{name}") if "architecture" in config else creator(folder, config)
    loaded = _made(name, create, folder if weights == "pretrained" else weights, seed, sizes)
    told = "architecture" in config or preprocessing_of(folder)
    return loaded if told else Loaded(loaded.model, (*loaded.notes, _GUESSED.format(folder=folder)))


def _open_with_transformers(folder: Path, config: dict[str, Any], weights: Weights, seed: int, sizes: Sizes) -> Loaded:
    said = settings_of(folder, config)
    notes: list[str] = []

    def make() -> nn.Module:
        model, told = make_from_folder(folder, config, weights, sizes)
        notes.extend(told)
        return model

    model: Any = seeded(make, seed)
    require_supported(model, f"folder {folder}")
    told = "mean" in said
    model.pretrained_cfg = said if told else {**said, "crop_pct": 1.0}
    return Loaded(model, tuple(notes) if told else (*notes, _GUESSED.format(folder=folder)))


_GUESSED = (
    "{folder} does not say how images are prepared, so timm's defaults are taken: name --mean, --std, --crop and "
    "--interpolation"
)


def _made(name: str, create: Callable[..., nn.Module], weights: Weights, seed: int, sizes: Sizes) -> Loaded:
    """A model that can be made in any size, with random weights or those of a checkpoint that it is made to fit."""
    if weights == "random":
        return Loaded(seeded(lambda: _created(name, create, sizes.options()), seed))
    reference = on_meta(lambda: _created(name, create, {}))
    require_supported(reference, f"model '{name}'")
    path, choice = split_choice(weights)
    taken = find_weights(read_checkpoint(path), reference.state_dict(), path, choice)
    options = options_for(reference, taken.found.state, sizes)
    model = seeded(lambda: _created(name, create, options), seed)
    notes = _copy(model, taken.found.state, name, weights, sizes)
    return Loaded(model, (*filter(None, [taken.note(path), _features_note(options, path)]), *notes))


_OPENERS: dict[Kind, Callable[[str, Weights, int, Sizes], Loaded]] = {
    "bundled": _open_bundled,
    "factory": _open_factory,
    "timm": _open_timm,
    "folder": _open_folder,
    "hub": _open_hub,
}


def seeded(create: Callable[[], nn.Module], seed: int) -> nn.Module:
    """Create a module whose random weights come from `seed`; the caller's random state stays as it was."""
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return create()


def on_meta(create: Callable[[], nn.Module]) -> nn.Module:
    """A module without memory for its weights."""
    import torch

    with torch.device("meta"):
        return create()


def _created(name: str, create: Callable[..., nn.Module], options: dict[str, Any]) -> nn.Module:
    """What it cannot be made with, a user has asked for, or a configuration holds."""
    try:
        model = create(**options)
        patches: Any = getattr(model, "patch_embed", None)
        if getattr(patches, "num_patches", 1) == 0:
            raise ValueError("not one patch fits into the image")
        if "img_size" in options and patches is None:  # of images of any size, it keeps nobody's in mind
            model.image_size = options["img_size"]
        return model
    except (AssertionError, ValueError, TypeError, RuntimeError) as error:
        asked = ", ".join(f"{key} {value}" for key, value in options.items())
        reason = " ".join(str(error).split())[:160] or type(error).__name__
        raise UserError(f"model '{name}' cannot be made with {asked or 'its own settings'}: {reason}") from error


def _with_checkpoint(model: nn.Module, name: str, weights: Weights) -> Loaded:
    path, choice = split_choice(weights)
    taken = find_weights(read_checkpoint(path), model.state_dict(), path, choice)
    notes = _copy(model, taken.found.state, name, weights, Sizes())
    return Loaded(model, (*filter(None, [taken.note(path)]), *notes))


def _copy(model: nn.Module, state: State, name: str, weights: Weights, sizes: Sizes) -> list[str]:
    """Copy the tensors into the model; keys of the original repositories are translated as timm does.

    Raises:
        UserError: the checkpoint is of another architecture or image size.
    """
    own = model.state_dict()
    if state.keys() != own.keys():
        state = _translated(model, state)
    state, notes = resampled(model, state, sizes)
    problem = _difference(own, state)
    if problem:
        raise UserError(f"checkpoint {weights} is of another architecture than {name}: {problem}")
    model.load_state_dict(state)
    return notes


def _translated(model: nn.Module, state: State) -> State:
    """The family's translation of other repositories' key names, unless it fails or would resample a tensor."""
    try:
        found = family_of(model).translated(model, state)
    except Exception:  # another architecture can break timm's filters anywhere; the comparison that follows reports it
        return state
    resampled = any(key in state and value.numel() != state[key].numel() for key, value in found.items())
    return state if resampled else found


def _difference(own: State, state: State) -> str | None:
    """What keeps `state` from fitting `own`, in one line."""
    missing, unexpected = [k for k in own if k not in state], [k for k in state if k not in own]
    shapes = [k for k in own if k in state and own[k].shape != state[k].shape]
    found = []
    if missing:
        found.append(f"{len(missing)} tensors are missing (first {missing[0]})")
    if unexpected:
        found.append(f"{len(unexpected)} are unexpected (first {unexpected[0]})")
    if shapes:
        key = shapes[0]
        found.append(f"{key} has shape {tuple(state[key].shape)}, expected {tuple(own[key].shape)}")
    return ", ".join(found) or None


def _features_note(options: dict[str, Any], path: Path) -> str | None:
    return f"{path} has no head: the model answers features" if options.get("num_classes") == 0 else None


def _half_note(model: nn.Module) -> list[str]:
    kinds = sorted({str(one.dtype).removeprefix("torch.") for one in model.parameters()} - {"float32"})
    return [f"weights of {' and '.join(kinds)} were loaded as float32"] if kinds else []


def _size_note(model: nn.Module) -> list[str]:
    """A module that takes any size is deployed for one."""
    if not getattr(model, "dynamic_img_size", False):
        return []
    size: Any = model.patch_embed.img_size  # type: ignore[union-attr]
    return [f"the module takes images of any size, its files take {size[0]}×{size[1]} alone"]
