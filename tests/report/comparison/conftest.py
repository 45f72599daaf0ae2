"""Builds whose every image and turn is chosen, so that the right answer is known."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from fimaq_deploy import report as r
from fimaq_deploy.measure.accuracy import wilson_interval
from fimaq_deploy.report.comparison.builds import Build
from fimaq_deploy.report.predictions import Predictions

IMAGES = 1000
LABELS = np.arange(IMAGES, dtype=np.int32) % 10
CPU = "onnxruntime-cpu"


def predicted(wrong: Iterable[int]) -> NDArray[np.int32]:
    """Every image right but these."""
    found = LABELS.copy()
    found[list(wrong)] = (found[list(wrong)] + 1) % 10
    return found


@pytest.fixture
def make(full_report: r.Report) -> Callable[..., Build]:
    """A build of the original and one row to ship, and what differs from the usual one."""

    def made(
        name: str = "old",
        wrong: Iterable[int] = range(50),
        speedup: float = 2.0,
        spread: float = 0.02,
        size_bytes: int = 1_000_000,
        kept: bool = True,
        **changes: Any,
    ) -> Build:
        rows = {"pytorch-fp32": predicted(range(40)), CPU: predicted(wrong)}
        fp_row, row = (full_row(row_id, found) for row_id, found in rows.items())
        latency = r.Latency(
            batch_size=1,
            p50_ms=10 / speedup,
            p90_ms=11,
            p99_ms=12,
            images_per_second=100,
            ratio_to="onnx-fp32",
            speedup=speedup,
            speedup_interval=(speedup * (1 - spread), speedup * (1 + spread)),
        )
        row = row.model_copy(update={"deployed": True, "latency": [latency], "size_bytes": size_bytes})
        report = full_report.model_copy(update={"rows": [fp_row, row], "targets": [r.TargetStatus(name=CPU)]})
        report = report.model_copy(update={name: value for name, value in changes.items() if name != "images"})
        found = Predictions(changes.get("images", "a fingerprint"), rows, LABELS)
        return Build(name, report, found if kept else None)

    return made


def full_row(row_id: str, found: NDArray[np.int32]) -> r.Row:
    hits = int((found == LABELS).sum())
    accuracy = r.Accuracy(images=IMAGES, top1=hits / 10, top5=None, interval=wilson_interval(hits, IMAGES))
    return r.Row(id=row_id, title=row_id, accuracy=accuracy)
