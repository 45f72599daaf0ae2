"""What every engine looks like from outside: float32 images in (or uint8 pixels, by its file), float32 logits out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fimaq_deploy.errors import UserError
from fimaq_deploy.target import ComputeCapability as ComputeCapability

Array = NDArray[Any]
Dimension = int | None


@dataclass(frozen=True)
class EngineFile:
    """A compiled engine. `log` holds the compiler's messages where they were asked for.

    since: the oldest GPU generation that it is for; None where it is for what is here.
    """

    path: Path
    target: str
    size_bytes: int
    build_seconds: float
    log: str = ""
    since: ComputeCapability | None = None


class Runner:
    """A loaded engine. Calling it maps images (N, C, H, W) to logits (N, classes), both float32.

    name: what the engine is, for tables and messages.
    input_shape: the shape that it takes; None where any size will do.
    outputs: images to everything that it returns, by name; None where that is the logits alone.
    dtype: of the images: float32, or uint8 where the file takes pixels.
    """

    def __init__(
        self,
        name: str,
        input_shape: tuple[Dimension, ...],
        run: Callable[[Array], Array],
        outputs: Callable[[Array], dict[str, Array]] | None = None,
        dtype: type[np.float32] | type[np.uint8] = np.float32,
    ) -> None:
        self.name = name
        self.input_shape = input_shape
        self.dtype = np.dtype(dtype)
        self._run = run
        self._outputs = outputs or (lambda images: {"logits": run(images)})

    def __call__(self, images: Array) -> Array:
        """Run one batch.

        Raises:
            UserError: not an array of the engine's type and shape with at least one image.
        """
        _check(self.name, self.input_shape, self.dtype, images)
        return self._run(np.ascontiguousarray(images))

    def outputs(self, images: Array) -> dict[str, Array]:
        """Run one batch and return every output by its name. Raises as calling it does."""
        _check(self.name, self.input_shape, self.dtype, images)
        return self._outputs(np.ascontiguousarray(images))

    def __repr__(self) -> str:
        return f"Runner({self.name}, images ({_text(self.input_shape)}))"


def _check(name: str, expected: tuple[Dimension, ...], dtype: np.dtype[Any], images: object) -> None:
    if not isinstance(images, np.ndarray):
        raise UserError(f"{name}: images are a {type(images).__name__}, expected a numpy array: convert with .numpy()")
    if images.dtype != dtype:
        raise UserError(f"{name}: images are {images.dtype}, expected {dtype}: convert with .astype('{dtype}')")
    fits = len(images.shape) == len(expected) and all(
        want in (None, size) for want, size in zip(expected, images.shape, strict=True)
    )
    if not fits:
        raise UserError(
            f"{name}: images have shape ({_text(images.shape)}), expected ({_text(expected)}): "
            "resize them or stack a batch"
        )
    if not len(images):
        raise UserError(f"{name}: the batch holds no images: pass at least one")


def _text(shape: tuple[Dimension, ...]) -> str:
    return ", ".join("N" if size is None else str(size) for size in shape)
