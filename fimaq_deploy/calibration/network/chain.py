"""What is quantized in a model's place, for images of one size."""

from __future__ import annotations

from torch import Tensor, nn

from fimaq_deploy.errors import UserError
from fimaq_deploy.models.describe import image_shape
from fimaq_deploy.models.families import family_of


def chain_of(model: nn.Module, images: Tensor) -> nn.Module:
    """What is quantized in a model's place, for images of this size.

    Raises:
        UserError: the model is not understood, or takes no images of this size.
    """
    family = family_of(model)
    family.check(model)
    _, channels, height, width = images.shape
    chain = family.as_chain(model, (channels, height, width))
    _require_size(chain, images)
    return chain


def _require_size(model: nn.Module, images: Tensor) -> None:
    size, expected = tuple(images.shape[1:]), image_shape(model)
    if size != expected and not getattr(model, "dynamic_img_size", False):
        raise UserError(f"calibration images are {size}, the model expects {expected}: resize them")
