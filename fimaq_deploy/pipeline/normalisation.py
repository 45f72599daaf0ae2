"""What a model does to its images before its encoder gets them, where that is a mean and a scale of each channel.

torchvision's detection models normalise their images themselves, and so do wrappers of people. A runtime that prepares
images as a contract says can do that too: both normalisations together are one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fimaq_deploy.contract import Contract

Images = TypeVar("Images", Tensor, NDArray[np.float32])

_DIGITS = 6  # that a fitted mean or std is taken to have; what was written by hand has fewer
_CLOSE = 1e-5
_LEAST_SPREAD = 1e-3  # of a channel that a line can be fitted to


@dataclass(frozen=True)
class Normalisation:
    """(images - mean) / std, by channel."""

    mean: tuple[float, ...]
    std: tuple[float, ...]

    @property
    def changes_nothing(self) -> bool:
        return not any(self.mean) and all(one == 1 for one in self.std)

    def __call__(self, images: Images) -> Images:
        """Images (N, C, H, W), as arrays or tensors."""
        if self.changes_nothing:
            return images
        if isinstance(images, Tensor):
            mean, std = (images.new_tensor(one).view(-1, 1, 1) for one in (self.mean, self.std))
            return (images - mean) / std
        shift, scale = (np.asarray(one, np.float32).reshape(-1, 1, 1) for one in (self.mean, self.std))
        return (images - shift) / scale

    def behind(self, contract: Contract) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and std of the contract's normalisation and this one behind it, as one."""
        if self.changes_nothing:
            return contract.mean, contract.std
        parts = list(zip(contract.mean, contract.std, self.mean, self.std, strict=True))
        means = tuple(first + scale * second for first, scale, second, _ in parts)
        return means, tuple(scale * second for _, scale, _, second in parts)


def find_normalisation(model: nn.Module, images: Tensor, reached: Tensor) -> Normalisation | None:
    """What makes of images (N, C, H, W) what reached the encoder; None where it is anything else.

    What torchvision's transform says is taken at its word; what others do is fitted. Both have to give what came.
    """
    if images.shape != reached.shape:
        return None
    channels = images.shape[1]
    if torch.equal(images, reached):
        return Normalisation((0.0,) * channels, (1.0,) * channels)
    for found in (_said(model, channels), _fitted(images, reached)):
        if found and torch.allclose(found(images), reached, rtol=_CLOSE, atol=_CLOSE):
            return found
    return None


def _said(model: nn.Module, channels: int) -> Normalisation | None:
    transform = getattr(model, "transform", None)
    mean, std = (getattr(transform, name, None) or () for name in ("image_mean", "image_std"))
    if len(mean) != channels or len(std) != channels:
        return None
    return Normalisation(tuple(map(float, mean)), tuple(map(float, std)))


def _fitted(images: Tensor, reached: Tensor) -> Normalisation | None:
    """By the line through what came, channel by channel, in as few digits as a hand would write."""
    own, came = (one.double().transpose(0, 1).flatten(1) for one in (images, reached))
    around, level = own.mean(1, keepdim=True), came.mean(1, keepdim=True)
    spread = ((own - around) ** 2).sum(1)
    if bool((spread <= _LEAST_SPREAD).any()):
        return None
    slope = ((own - around) * (came - level)).sum(1) / spread
    if not bool((slope > 0).all()):
        return None
    mean = around[:, 0] - level[:, 0] / slope
    return Normalisation(*(tuple(float(f"{value:.{_DIGITS}g}") + 0.0 for value in each) for each in (mean, 1 / slope)))
