"""Before anything is quantized: the copy that will be quantized computes what the user's model computes.

Layers are taken over by their weights, so a module whose forward is not what its class says would be lost: a subclass,
a hook, a parametrization, a replaced method, an adapter. What acts as one Linear all the same is merged into weights
(`merge_adapters`); where the copy still differs beyond float noise, the first module that does is named, with what is
unusual about it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from fimaq_deploy.calibration.learning.outputs import tensors_of
from fimaq_deploy.calibration.network.attentions import replace_module
from fimaq_deploy.errors import UserError

# Of the largest output: what float sums in another order and exact rewrites may change.
TOLERANCE = 1e-3
_AFFINE = 1e-4


@torch.no_grad()
def merge_adapters(model: nn.Module) -> dict[str, str]:
    """Put one plain Linear in the place of every Linear that is more than its weights say, in place.

    Adapters such as LoRA, parametrizations and hooks make a layer that is still affine. Its weights are read off by
    applying it to the identity, which merges all of them alike, whoever wrote them.

    Returns what was merged, by name, with its class.

    Raises:
        UserError: a layer is unusual and not affine; names it.
    """
    merged: dict[str, str] = {}
    for name, module in list(model.named_modules()):
        if any(name.startswith(f"{outer}.") for outer in merged):
            continue
        inner = _wrapped_linear(module)
        if inner is not None and (reason := unusual(module)):
            merged[name] = f"{type(module).__name__}: {reason}"
            replace_module(model, name, _as_linear(name, module, inner, merged[name]))
    return merged


def _wrapped_linear(module: nn.Module) -> nn.Linear | None:
    """The Linear that a module is, or wraps as adapters do."""
    if isinstance(module, nn.Linear):
        return module
    base = getattr(module, "base_layer", None) or getattr(module, "linear", None) or getattr(module, "original", None)
    return base if isinstance(base, nn.Linear) else None


def unusual(module: nn.Module) -> str | None:
    """Why a module may compute something else than its class says; None where nothing speaks for it."""
    own = type(module)
    if parametrize.is_parametrized(module):
        return "it has a parametrization"
    if "forward" in vars(module):
        return "its forward was replaced"
    if module._forward_hooks or module._forward_pre_hooks:
        return "it has a forward hook"
    if not own.__module__.startswith(("torch.", "timm.", "transformers.", "torchvision.")):
        return f"its class {own.__module__}.{own.__qualname__} is not the library's"
    return None


def _as_linear(name: str, module: nn.Module, inner: nn.Linear, what: str) -> nn.Linear:
    like = inner.weight
    eye = torch.eye(inner.in_features, dtype=like.dtype, device=like.device)
    shift = module(torch.zeros_like(eye[:1]))
    weight = (module(eye) - shift).T
    probe = torch.randn(8, inner.in_features, generator=torch.Generator().manual_seed(0)).to(like)
    expected = module(probe)
    error = (probe @ weight.T + shift - expected).abs().max() / expected.abs().max().clamp(min=1e-12)
    if not error <= _AFFINE:
        raise UserError(
            f"module '{name}' ({what}) is no linear map of its input, so it cannot be quantized as the Linear that it "
            "stands for: replace it by one, or merge it into its weights"
        )
    outputs, inputs = weight.shape
    plain = nn.Linear(inputs, outputs, bias=bool(shift.any()), dtype=like.dtype, device=like.device)
    plain.weight.copy_(weight)
    if plain.bias is not None:
        plain.bias.copy_(shift[0])
    return plain.train(module.training)


@torch.no_grad()
def require_same(model: nn.Module, copy: nn.Module, images: Tensor, original: nn.Module | None = None) -> None:
    """Refuse a copy that computes something else than the model.

    copy: before any rewrite, so that modules can be compared one by one. images: (N, C, H, W). original: what runs the
    model, where its own call is not what is deployed.

    Raises:
        UserError: names the first module that differs, and why.
    """
    found = tensors_of(copy(images))
    run = original or model
    expected = _asked(tensors_of(run(images)), found, getattr(copy, "answer", ""))
    error = max((_difference(one, found.get(name)) for name, one in expected.items()), default=0.0)
    if error <= TOLERANCE:
        return
    raise UserError(
        f"the copy that would be quantized does not compute what the model does (they differ by {error:.1e} of the "
        f"largest output): {_first_difference(model, copy, images, run)}"
    )


def _asked(expected: dict[str, Tensor], found: dict[str, Tensor], answer: str) -> dict[str, Tensor]:
    """What the copy has to answer: all that the model does, or of a chain's one tensor the one that it stands for."""
    if len(found) > 1 or (len(expected) > 1 and answer not in expected):
        return expected
    return dict.fromkeys(found, expected[answer] if answer in expected else next(iter(expected.values())))


def _difference(expected: Tensor, found: Tensor | None) -> float:
    """The largest difference relative to the largest number; infinite where shapes differ."""
    if found is None or found.shape != expected.shape:
        return float("inf")
    if not expected.isfinite().all():
        return 0.0
    return float((found - expected).abs().max() / expected.abs().max().clamp(min=1e-12))


def _first_difference(model: nn.Module, plain: nn.Module, images: Tensor, run: nn.Module) -> str:
    with _recorded(model) as ours, _recorded(plain) as theirs:
        run(images), plain(images)
    modules, copied = dict(model.named_modules()), _names_in(plain)
    for name, output in ours.items():
        if _difference(output, theirs.get(copied.get(name, name), output)) > TOLERANCE:
            reason = next(
                (f"; {why}" for why in (*_unusual_inside(modules[name]), *_unusual_around(modules, name))), ""
            )
            return f"they part at module '{name or 'the model itself'}' ({type(modules[name]).__name__}){reason}"
    return next(_unusual_inside(model), "the model's own forward does something else than its class says")


def _names_in(copy: nn.Module) -> dict[str, str]:
    """Where a chain has the model's modules, by their name in the model."""
    return {theirs: ours for ours, theirs in getattr(copy, "origins", {}).items()}


def _unusual_inside(module: nn.Module) -> Iterator[str]:
    for name, inner in module.named_modules():
        if reason := unusual(inner):
            yield f"{f'in {name} ' if name else ''}{reason}"


def _unusual_around(modules: Mapping[str, nn.Module], name: str) -> Iterator[str]:
    while name:
        name = name.rpartition(".")[0]
        if reason := unusual(modules[name]):
            yield f"around it, in '{name or 'the model'}', {reason}"


@contextmanager
def _recorded(model: nn.Module) -> Iterator[dict[str, Tensor]]:
    """Every module's output by name, in the order in which they end, of one run inside."""
    seen: dict[str, Tensor] = {}

    def watch(name: str) -> Any:
        def hook(_module: nn.Module, _inputs: Any, output: Any) -> None:
            if isinstance(output, Tensor):
                seen.setdefault(name, output)

        return hook

    handles = [module.register_forward_hook(watch(name)) for name, module in model.named_modules()]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()
