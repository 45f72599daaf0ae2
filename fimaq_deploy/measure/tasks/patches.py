"""Tokens of an encoder as the grid of patches that they stand for."""

from __future__ import annotations

from fimaq_deploy.errors import UserError
from fimaq_deploy.measure.tasks.task import Array

_PREFIX = 16  # class and register tokens in front of the patches, at most


def on_grid(vectors: Array, size: tuple[int, ...]) -> Array:
    """(N, rows, columns, size) of maps, or of tokens without those in front of the patches.

    size: height and width of the image, or of its map of classes: patches have its proportions.

    Raises:
        UserError: no number of patches has.
    """
    if vectors.ndim == 4:
        return vectors
    tokens = vectors.shape[1]
    for prefix in range(min(_PREFIX, tokens - 1) + 1):
        rows = _rows(tokens - prefix, size)
        if rows:
            return vectors[:, prefix:].reshape(len(vectors), rows, -1, vectors.shape[-1])
    raise UserError(
        f"{tokens} tokens: expected a patch for each place of {size[0]}×{size[1]} pixels, and at most "
        f"{_PREFIX} tokens in front"
    )


def _rows(patches: int, size: tuple[int, ...]) -> int | None:
    """How many rows of square patches, None where they do not come out even."""
    height, width = size
    rows = round((patches * height / width) ** 0.5)
    fits = rows > 0 and patches % rows == 0 and abs(patches // rows * height - rows * width) < min(height, width)
    return rows if fits else None
