"""Integers (N, ...) that the model chose itself, such as classes behind an argmax in the graph: equal, or not."""

from __future__ import annotations

import numpy as np

from fimaq_deploy.measure.tasks.task import Array, Figure, Task


def _alike(own: Array, reference: Array) -> Array:
    return (own == reference).reshape(len(own), -1).mean(1)


def _refuse_labels(own: Array, labels: Array) -> str | None:
    if labels.shape != own.shape or not np.issubdtype(labels.dtype, np.integer):
        return f"labels are {labels.dtype} {labels.shape}: expected integers of the output's shape, {own.shape}"
    return None


CHOICES = Task(
    kind="choices",
    fits=lambda shape: True,
    expected="integers (N, ...)",
    figures=(
        Figure("right", "right", "{value} right", "labels", _alike, unit="%", headline=True, column=True),
        Figure(
            name="agreement",
            title="agree",
            told="{value} of choices as {other}",
            of="original",
            parts=_alike,
            unit="%",
            gate="agreement",
            floor=50.0,
            headline=True,
            column=True,
        ),
    ),
    refuse_labels=_refuse_labels,
)
