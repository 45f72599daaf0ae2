"""The attention modules of a model, as its family names them or spelled out."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

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


@torch.no_grad()
def attention_tokens(model: nn.Module, image: Tensor) -> dict[str, int]:
    """The sequence length that each attention of a model that is not quantized sees for one image (1, C, H, W).

    Raises:
        UserError: an attention is never called.
    """
    seen: dict[str, int] = {}

    def watch(name: str) -> Callable[..., None]:
        return lambda _module, inputs: seen.__setitem__(name, inputs[0].shape[1])

    found = attentions_of(model)
    handles = [heads.qkv.register_forward_pre_hook(watch(name)) for name, heads in found.items()]
    try:
        model(image)
    finally:
        for handle in handles:
            handle.remove()
    idle = next((name for name in found if name not in seen), None)
    if idle is not None:
        raise UserError(f"module '{idle}' is never called: a forward of this model is not what its class says")
    return seen
