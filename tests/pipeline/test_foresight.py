"""A build says what it will need before anything takes long."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from typing import Any

import pytest
import torch

from fimaq_deploy.data.intake import as_source
from fimaq_deploy.engines.runtimes import find_runtime
from fimaq_deploy.pipeline import foresight
from fimaq_deploy.pipeline.foresight import announce

Make = Callable[..., Any]


def said(
    caplog: pytest.LogCaptureFixture, model: torch.nn.Module, images: torch.Tensor, recipe: Any, *targets: str
) -> tuple[int, str]:
    caplog.clear()
    with caplog.at_level(logging.INFO, "fimaq_deploy"):
        announce(model, as_source(images), recipe, [find_runtime(name) for name in targets or ("onnxruntime-cpu",)])
    (record,) = caplog.records
    return record.levelno, record.getMessage()


def test_it_is_one_line_with_what_it_follows_from(
    tiny_vit: Make, random_images: Make, quick_recipe: Make, caplog: pytest.LogCaptureFixture
) -> None:
    level, line = said(caplog, tiny_vit(), random_images(20), quick_recipe())
    assert level == logging.INFO
    pattern = (
        r"memory    about [\d.]+ GiB at its peak \(5 tokens of width 32, (\d+) images, (\d+) at once\); [\d.]+ GiB "
    )
    found = re.match(pattern, line)
    assert found and int(found[2]) <= int(found[1]) <= 20


def test_compilers_are_not_counted_and_that_is_said(
    tiny_vit: Make, random_images: Make, quick_recipe: Make, caplog: pytest.LogCaptureFixture
) -> None:
    given = (caplog, tiny_vit(), random_images(4), quick_recipe())
    assert "at its peak (" in said(*given)[1]
    assert "at its peak, compilers not counted (" in said(*given, "onnxruntime-cpu", "tensorrt-rtx")[1]


def test_more_tokens_need_more(
    tiny_vit: Make, random_images: Make, quick_recipe: Make, caplog: pytest.LogCaptureFixture
) -> None:
    peaks = []
    for size in (16, 512):
        _, line = said(caplog, tiny_vit(img_size=size), random_images(2, size=size), quick_recipe())
        peaks.append(float(line.split()[2]))
    assert peaks[1] > peaks[0] + 1


def test_what_may_not_fit_is_a_warning(
    tiny_vit: Make,
    random_images: Make,
    quick_recipe: Make,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(foresight, "free_host_bytes", lambda: 2**20)
    level, line = said(caplog, tiny_vit(), random_images(20), quick_recipe())
    assert level == logging.WARNING and line.endswith("so it may be killed: take smaller images, or fewer")
