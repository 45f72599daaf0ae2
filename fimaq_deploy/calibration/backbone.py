"""What an encoder gets inside of the model that it belongs to, which is what it learns from.

Whatever the model does to images before (resizing, normalising, padding) is in it. A pass ends where the encoder is
reached: the rest does not run.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from fimaq_deploy.calibration.device import place_of
from fimaq_deploy.errors import UserError
from fimaq_deploy.models.inside import Inside, images_of


class _Reached(Exception):
    """Ends a pass at the encoder."""


@torch.no_grad()
def encoder_inputs(model: nn.Module, inside: Inside, batches: Iterable[Tensor]) -> Iterator[Tensor]:
    """What the encoder gets for each batch of the model's images, on the host.

    Raises:
        UserError: it is never called, or gets images of several sizes, or not one for each of the model's.
    """
    shape: torch.Size | None = None
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        for images in batches:
            found = _reached(model, inside, images)
            shape = shape or found.shape[1:]
            _require_fitting(inside, found, len(images), shape)
            yield found.detach().float().cpu()
    finally:
        for module in training:
            module.training = True


def _reached(model: nn.Module, inside: Inside, images: Tensor) -> Tensor:
    seen: list[Tensor] = []

    def stop(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        seen.append(images_of(args, kwargs))
        raise _Reached

    handle = inside.encoder.register_forward_pre_hook(stop, with_kwargs=True)
    try:
        model(images.to(place_of(model)))
    except _Reached:
        return seen[0]
    finally:
        handle.remove()
    raise UserError(
        f"the model never calls its encoder '{inside.name}' ({type(inside.encoder).__name__}): expected its forward to "
        "call the module itself, not one of its methods"
    )


def _require_fitting(inside: Inside, found: Tensor, images: int, shape: torch.Size) -> None:
    what = f"the encoder '{inside.name}'"
    if found.shape[1:] != shape:
        first, other = ("×".join(map(str, size)) for size in (shape, found.shape[1:]))
        raise UserError(
            f"{what} gets images of {first} and of {other}: a quantized file has one size, so let the model resize or "
            "pad all images to one"
        )
    if len(found) != images:
        raise UserError(f"{what} gets {len(found)} images for {images} of the model: expected one for each")
