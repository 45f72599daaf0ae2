"""A name or a factory in, a module in eval mode with its weights out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from fimaq_deploy.errors import UserError
from fimaq_deploy.models.bundled import BUNDLED
from fimaq_deploy.models.families import family_of

if TYPE_CHECKING:
    import torch
    from torch import nn
from fimaq_deploy.models.checkpoint import State, read_checkpoint
from fimaq_deploy.models.describe import find_device, require_finite, require_supported
from fimaq_deploy.models.factory import current_directory_importable, find_factory
from fimaq_deploy.models.hub import load_pretrained
from fimaq_deploy.models.names import SHORT_NAMES, find_timm_config

_HEADS = ("head.fc.weight", "head.weight")


def load_model(
    name: str, weights: str | Path = "pretrained", *, device: str | torch.device = "cpu", seed: int = 0
) -> nn.Module:
    """A model in eval mode, float32, with its weights.

    name: a bundled name, a short name, a timm name, or `package.module:factory`, which is called without arguments and
        may also live in the current directory.
    weights: "pretrained" (for a factory: as it returns them), "random" (drawn from `seed`), or the path of a
        `.safetensors` file or of a `.pth`, `.pt` or `.bin` file read without running code. A checkpoint with another
        number of classes changes the classifier of a timm name to that number.

    Raises:
        UserError: unknown name or another architecture; a checkpoint that is missing, corrupt, of another architecture
            or not finite; pretrained weights that cannot be downloaded; an unknown or absent device.
    """
    place = find_device(device)
    if name in BUNDLED:
        model = _load_bundled(name, weights, seed)
    elif ":" in name:
        model = _load_factory(name, weights, seed)
    else:
        model = _load_timm(name, weights, seed)
    require_finite(model)
    return model.to(place).float().eval()


def _load_bundled(name: str, weights: str | Path, seed: int) -> nn.Module:
    model = seeded(BUNDLED[name].create, seed)
    channels = model.patch_embed.proj.in_channels  # type: ignore[union-attr]
    half = (0.5,) * int(channels)  # type: ignore[arg-type]
    model.pretrained_cfg = {"architecture": name, "mean": half, "std": half, "crop_pct": 1.0}  # type: ignore[assignment]
    if weights != "random":
        _load_into(model, read_checkpoint(BUNDLED[name].weights if weights == "pretrained" else weights), name, weights)
    return model


def _load_factory(name: str, weights: str | Path, seed: int) -> nn.Module:
    from torch import nn

    if weights == "random":
        raise UserError(
            f"weights 'random' for {name}: a factory decides its own; use 'pretrained' (as it returns them)"
        )
    with current_directory_importable():
        model = seeded(find_factory(name), seed)
    if not isinstance(model, nn.Module):
        raise UserError(f"factory {name} returned {type(model).__name__}: expected a torch.nn.Module")
    require_supported(model, name)
    if weights != "pretrained":
        _load_into(model, read_checkpoint(weights), name, weights)
    return model


def _load_timm(name: str, weights: str | Path, seed: int) -> nn.Module:
    import timm

    full = SHORT_NAMES.get(name, name)
    config = find_timm_config(name, full)
    if weights == "pretrained":
        return load_pretrained(full, config)
    if weights == "random":
        return seeded(lambda: timm.create_model(full), seed)
    state = read_checkpoint(weights)
    classes = next((len(state[key]) for key in _HEADS if key in state and state[key].ndim == 2), None)
    model = seeded(lambda: timm.create_model(full, num_classes=classes), seed)
    _load_into(model, state, name, weights)
    return model


def seeded(create: Callable[[], nn.Module], seed: int) -> nn.Module:
    """Create a module whose random weights come from `seed`; the caller's random state stays as it was."""
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return create()


def _load_into(model: nn.Module, state: State, name: str, weights: str | Path) -> None:
    """Copy the state into the model; keys of the original repositories are translated as timm does.

    Raises:
        UserError: the checkpoint is of another architecture or image size.
    """
    own = model.state_dict()
    if state.keys() != own.keys():
        state = _translated(model, state)
    problem = _difference(own, state)
    if problem:
        raise UserError(f"checkpoint {weights} is of another architecture than {name}: {problem}")
    model.load_state_dict(state)


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
