"""The attention modules of a model, as its family names them or spelled out."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call

from fimaq_deploy.errors import UserError
from fimaq_deploy.models.families import family_of
from fimaq_deploy.models.families.attention import ExplicitAttention
from fimaq_deploy.models.families.roles import Heads


def is_explicit(model: nn.Module) -> bool:
    """Whether a model's attention is spelled out."""
    return any(isinstance(module, ExplicitAttention) for module in model.modules())


def attentions_of(model: nn.Module) -> dict[str, Heads]:
    """The attentions whose products can be quantized, by name in the model's order."""
    if not is_explicit(model):
        return {heads.name: heads for heads in family_of(model).heads(model)}
    named = ((name, module) for name, module in model.named_modules() if isinstance(module, ExplicitAttention))
    return {name: Heads(name, one.qkv, one.proj, one.num_heads) for name, one in named}


def replace_module(root: nn.Module, name: str, module: nn.Module) -> None:
    """Put a module in the place of another one, by name."""
    parent, _, leaf = name.rpartition(".")
    setattr(root.get_submodule(parent), leaf, module)


@dataclass(frozen=True)
class Seen:
    """What an attention gets for one image: so many windows (1 without any), of so many tokens, of so many channels."""

    windows: int
    tokens: int
    width: int


def attention_tokens(model: nn.Module, image: Tensor) -> dict[str, int]:
    """The sequence length that each attention of a model that is not quantized sees for one image (1, C, H, W).

    Raises:
        UserError: an attention is never called.
    """
    return {name: seen.tokens for name, seen in attention_inputs(model, image).items()}


@torch.no_grad()
def attention_inputs(model: nn.Module, image: Tensor) -> dict[str, Seen]:
    """What each attention of a model that is not quantized sees for one image (1, C, H, W).

    Shapes alone are computed where that is possible: an image that is too large for the memory has to be found out
    before it fills it.

    Raises:
        UserError: an attention is never called.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return _watched(model, _shapes_of, image)
    except (UserError, *_NEEDS_NUMBERS):
        return _watched(model, lambda model, image: model(image), image)


# What a model raises that reads numbers, or keeps tensors that are neither parameters nor buffers.
_NEEDS_NUMBERS = (RuntimeError, NotImplementedError, TypeError, ValueError, AssertionError, AttributeError)


def _shapes_of(model: nn.Module, image: Tensor) -> None:
    tensors = dict((*model.named_parameters(), *model.named_buffers()))
    functional_call(model, {name: each.to("meta") for name, each in tensors.items()}, (image.to("meta"),))


def _seen(shape: torch.Size) -> Seen:
    return Seen(shape[0], shape[1], shape[-1])


def _watched(model: nn.Module, run: Callable[[nn.Module, Tensor], object], image: Tensor) -> dict[str, Seen]:
    seen: dict[str, Seen] = {}

    def watch(name: str) -> Callable[..., None]:
        return lambda _module, inputs: seen.__setitem__(name, _seen(inputs[0].shape))

    found = attentions_of(model)
    handles = [heads.qkv.register_forward_pre_hook(watch(name)) for name, heads in found.items()]
    try:
        run(model, image)
    finally:
        for handle in handles:
            handle.remove()
    idle = next((name for name in found if name not in seen), None)
    if idle is not None:
        raise UserError(f"module '{idle}' is never called: a forward of this model is not what its class says")
    return seen
