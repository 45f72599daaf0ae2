"""A few images from all over a source, kept while it is read once.

The first images of a folder are those of its first class. So some of every batch are kept, and every second one is
dropped again when they become many.
"""

from __future__ import annotations

import torch
from torch import Tensor


class Spread:
    """Between `wanted` / 2 and `wanted` images of those that were added, evenly spaced; all, where there are fewer."""

    def __init__(self, wanted: int) -> None:
        self._wanted, self._stride, self._seen = wanted, 1, 0
        self._kept: list[Tensor] = []

    def add(self, images: Tensor) -> None:
        """Images (n, C, H, W), the next ones."""
        for image in images:
            if self._seen % self._stride == 0:
                self._kept.append(image.clone())
            self._seen += 1
            if len(self._kept) > self._wanted:
                self._kept, self._stride = self._kept[::2], 2 * self._stride

    @property
    def images(self) -> Tensor:
        """(N, C, H, W), in the order that they came in."""
        return torch.stack(self._kept)
