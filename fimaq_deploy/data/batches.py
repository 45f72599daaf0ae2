"""Batches cut and joined."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import torch

from fimaq_deploy.data.source import Batch
from fimaq_deploy.errors import UserError


def regroup(batches: Iterable[Batch], size: int) -> Iterator[Batch]:
    """The same images in batches of `size`."""
    held: list[Batch] = []
    for batch in batches:
        held.append(batch)
        if sum(len(each.images) for each in held) >= size:
            merged = merge(held)
            whole = len(merged.images) // size * size
            yield from (rows_of(merged, slice(start, start + size)) for start in range(0, whole, size))
            held = [rows_of(merged, slice(whole, None))] if whole < len(merged.images) else []
    if held:
        yield merge(held)


def merge(batches: Sequence[Batch]) -> Batch:
    labels = [batch.labels for batch in batches if batch.labels is not None]
    if labels and len(labels) < len(batches):
        raise UserError("some image batches have labels and some have none: give all of them labels, or none")
    if len({(each.dtype, each.shape[1:]) for each in labels}) > 1:
        raise UserError("labels of several types or shapes: expected one kind for all images")
    return Batch(torch.cat([batch.images for batch in batches]), torch.cat(labels) if labels else None)


def rows_of(batch: Batch, rows: slice) -> Batch:
    return Batch(batch.images[rows], None if batch.labels is None else batch.labels[rows])


def images_at_once(shape: Sequence[int], count: int) -> int:
    """How many images of a shape (..., H, W) run together, at least one: as many pixels as `count` of 224×224 have."""
    return max(1, min(count, count * 224 * 224 // (shape[-2] * shape[-1])))
