"""Cells of a sweep whose figures are chosen."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from fimaq_deploy.report.sweep_page.records import Cell, Line


@pytest.fixture
def make() -> Callable[..., Cell]:
    def made(name: str, model: str, top1: float, speedup: float, base_ms: float = 10.0, **changes: Any) -> Cell:
        line = Line(
            id="cpu",
            title="ONNX Runtime CPU",
            top1=top1,
            interval=(top1 - 1, top1 + 1),
            drop=95 - top1,
            p50_ms=base_ms / speedup,
            speedup=speedup,
            speedup_interval=(0.99 * speedup, 1.01 * speedup),
            size_bytes=round(1e6 / speedup),
        )
        original = Line(id="onnx-fp32", title="FP32", top1=95.0, p50_ms=base_ms, size_bytes=4_000_000)
        return Cell(
            name=name,
            model=model,
            recipe=name,
            targets=["onnxruntime-cpu"],
            identity=name,
            state="done",
            seconds=3.0,
            images=600,
            original=original,
            **{"shipped": [line], **changes},
        )

    return made
