"""What a program hands over as images, as a model reads it.

The rules, the same for every kind of source:

- floats of any width are images that are prepared already: they are taken as they are, in float32;
- uint8 arrays are raw pixels: divided by 255, then normalised with the model's mean and standard deviation. They need
  the model's size, because only files and PIL images are resized;
- channels last is recognised where the model's shape fits that way and only that way; so are grey images without an
  axis for their channel;
- every other data type is refused, because its scale is anyone's guess.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from fimaq_deploy.data.source import Shape
from fimaq_deploy.errors import UserError
from fimaq_deploy.models.describe import ModelInfo

Reads: TypeAlias = "ModelInfo | Shape | None"

_SUSPICIOUS = 50.0  # normalised pixels stay far below it, raw ones do not
_RAW = "uint8 pixels were divided by 255 and normalised with mean {mean} and standard deviation {std}"
_LAST = "arrays with their channels last were transposed to (N, C, H, W)"
_LARGE = "float images reach {largest:.4g}: floats are taken as they are, so normalise them as the model was trained"


@dataclass
class Pixels:
    """Turns images in memory into float32 (N, C, H, W) tensors that a model reads.

    reads: of the model: all of it, its shape (C, H, W), or None where nothing is known; then the first image decides.
    notes: what was done to the images that a report should say.
    """

    reads: Reads = None
    notes: list[str] = field(default_factory=list)

    @property
    def shape(self) -> Shape | None:
        return self.reads.input_shape if isinstance(self.reads, ModelInfo) else self.reads

    def __call__(self, images: Any, what: str) -> Tensor:
        """Images (N, C, H, W), (N, H, W) where grey, or one image (C, H, W) or (H, W), as a checked CPU tensor.

        Raises:
            UserError: `what` they are is not one of the above, or a pixel is NaN or infinite.
        """
        tensor = _as_tensor(images, what)
        if not len(tensor):
            raise UserError(f"{what} has size 0: expected at least one image")
        laid_out = self._channels_first(_batched(tensor, self.shape))
        if laid_out.ndim != 4:
            raise UserError(f"{what} has shape {tuple(tensor.shape)}: expected 4 axes (N, C, H, W)")
        self._check_shape(laid_out, what)
        floats = laid_out.float() if laid_out.is_floating_point() else self._normalised(laid_out, what)
        self._check_values(floats, what, raw=not laid_out.is_floating_point())
        return floats.contiguous()

    def _channels_first(self, images: Tensor) -> Tensor:
        shape = self.shape
        if shape is None or images.ndim != 4 or images.shape[1:] == shape or images.shape[1:] != (*shape[1:], shape[0]):
            return images
        self.note(_LAST)
        return images.permute(0, 3, 1, 2)

    def _check_shape(self, images: Tensor, what: str) -> None:
        found = shape_of(images)
        if self.shape is None:
            self.reads = found
        elif found != tuple(self.shape):
            raise UserError(f"{what} holds images of {size(found)}: expected {size(self.shape)}, resize them first")

    def _normalised(self, pixels: Tensor, what: str) -> Tensor:
        if not isinstance(self.reads, ModelInfo):
            raise UserError(
                f"{what} is uint8: expected floats, scaled and normalised as the model was trained, because its mean "
                "and standard deviation are not known here"
            )
        mean, std = self.reads.mean, self.reads.std
        self.note(_RAW.format(mean=numbers(mean), std=numbers(std)))
        offset, scale = (torch.tensor(values).view(-1, 1, 1) for values in (mean, std))
        return (pixels.float() / 255 - offset) / scale

    def _check_values(self, images: Tensor, what: str, *, raw: bool) -> None:
        bad = int((~images.isfinite()).flatten(1).any(1).sum())
        if bad:
            raise UserError(f"{what}: {bad} of {len(images)} images hold NaN or infinite pixels; remove or repair them")
        largest = float(images.abs().max())
        if not raw and largest > _SUSPICIOUS:
            self.note(_LARGE.format(largest=largest), once=_LARGE.split("{", 1)[0])

    def note(self, text: str, *, once: str | None = None) -> None:
        """Keep a note. once: how notes begin of which one is enough."""
        if not any(note.startswith(once or text) for note in self.notes):
            self.notes.append(text)


def size(shape: Shape) -> str:
    return "×".join(map(str, shape))


def numbers(values: tuple[float, ...]) -> str:
    """One number for every channel, or each of them."""
    return f"{values[0]:.4g}" if len(set(values)) == 1 else f"({', '.join(f'{value:.4g}' for value in values)})"


def shape_of(images: Tensor) -> Shape:
    channels, height, width = images.shape[1:]
    return channels, height, width


def is_array(value: Any) -> bool:
    return isinstance(value, (Tensor, np.ndarray))


def _as_tensor(images: Any, what: str) -> Tensor:
    if not is_array(images):
        raise UserError(f"{what} is a {type(images).__name__}: expected an array or tensor (N, C, H, W) of images")
    name = str(images.dtype).removeprefix("torch.")
    if isinstance(images, np.ndarray):
        # `kind` is "f" for floats; NumPy's own byte orders and strides are not torch's.
        native = np.require(images, images.dtype.newbyteorder("="), ["C", "W"]) if images.dtype.kind in "fu" else None
        tensor = None if native is None or native.dtype.itemsize > 8 else _from_numpy(native)
    else:
        tensor = images.detach().cpu() if not images.is_sparse else images.detach().cpu().to_dense()
    if tensor is None or not (tensor.dtype == torch.uint8 or tensor.is_floating_point()):
        raise UserError(
            f"{what} is {name}: expected floats, scaled and normalised as the model was trained, or uint8 pixels"
        )
    return tensor if tensor.ndim else tensor[None]


def _from_numpy(images: np.ndarray[Any, Any]) -> Tensor | None:
    try:
        return torch.from_numpy(images)
    except TypeError:  # a type that torch lacks
        return None


def _batched(images: Tensor, shape: Shape | None) -> Tensor:
    """With an axis for the batch, and one for the channel of grey images."""
    if shape is not None and shape[0] == 1 and images.shape[-2:] == shape[1:] and images.ndim in (2, 3):
        return images.reshape(-1, *shape)
    return images[None] if images.ndim == 3 else images
