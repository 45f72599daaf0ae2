"""What every source of images is: batches that a model reads, in a fixed order.

Every source yields float32 (N, channels, height, width) on the CPU, preprocessed, with labels where it has them.
Sources stream: a folder is decoded as it is read, again on every pass, and only `take` holds images. The order is the
same on every pass.

Not covered: timm data sets (`timm:` names).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fimaq_deploy.errors import UserError

Shape: TypeAlias = tuple[int, int, int]


Array: TypeAlias = "Tensor | NDArray[Any]"


BATCH_SIZE = 32


class Batch(NamedTuple):
    """Images float32 (N, C, H, W) and, where known, labels: int64 (N,), or whatever numbers (N, ...) a task has."""

    images: Tensor
    labels: Tensor | None


class ImageSource(ABC):
    """Images in a fixed order. Iterating yields image tensors of up to 32."""

    @property
    @abstractmethod
    def description(self) -> str:
        """What the images are, for a report."""

    @property
    @abstractmethod
    def count(self) -> int | None:
        """How many images a pass yields, without the unreadable files found so far; None where only a pass can tell."""

    @property
    @abstractmethod
    def labelled(self) -> bool:
        """Whether batches carry labels."""

    @property
    def skipped(self) -> tuple[Path, ...]:
        """Unreadable files found so far, in name order."""
        return ()

    @property
    def notes(self) -> tuple[str, ...]:
        """What a report should say about the source."""
        return ()

    @abstractmethod
    def batches(self, size: int = BATCH_SIZE) -> Iterator[Batch]:
        """One pass, in batches of `size` images; the last may be smaller.

        Raises:
            UserError: an image is not what a model reads, or there is none.
        """

    def __iter__(self) -> Iterator[Tensor]:
        return (batch.images for batch in self.batches())

    def take(self, count: int) -> Tensor:
        """The first `count` images (count, C, H, W), or all where there are fewer.

        Raises:
            UserError: as `batches`.
        """
        require_positive(count)
        found: list[Tensor] = []
        for batch in self.batches(min(BATCH_SIZE, count)):
            found.append(batch.images)
            if sum(map(len, found)) >= count:
                break
        if not found:
            raise UserError(f"{self.description}: there is no image")
        return torch.cat(found)[:count]


def drawn(total: int, count: int | None, seed: int) -> NDArray[np.int64]:
    """`count` of `total` positions, or all of them, in an order drawn from `seed`."""
    return np.random.default_rng(seed).permutation(total)[:count]


def require_positive(number: int, what: str = "image count") -> None:
    if number < 1:
        raise UserError(f"{what} {number}: expected at least 1")
