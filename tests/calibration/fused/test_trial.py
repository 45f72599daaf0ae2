"""Kernels are tried before anything is learned, and left alone where they are not right."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from fimaq_deploy.calibration.device import of
from fimaq_deploy.calibration.fused import trial
from fimaq_deploy.calibration.quantization import quantize

pytest.importorskip("triton", reason="Triton comes with torch's CUDA builds")
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
PLACE = type(of(DEVICE))
Make = Callable[..., Any]


@pytest.fixture(autouse=True)
def fuses(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(PLACE, "fuses", True)
    trial._problem.cache_clear()
    yield
    trial._problem.cache_clear()


def test_here_they_are_right_and_no_random_number_is_lost(recwarn: pytest.WarningsRecorder) -> None:
    of(DEVICE).seed(3)
    expected = torch.rand(4, device=DEVICE)
    of(DEVICE).seed(3)
    trial.try_kernels(DEVICE)
    assert of(DEVICE).fuses and not recwarn.list
    assert torch.equal(torch.rand(4, device=DEVICE), expected)


def test_wrong_numbers_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    from fimaq_deploy.calibration.fused import rows

    monkeypatch.setattr(rows, "rows_drawn", lambda x: torch.full((*x.shape[:-1], 1), 0.5, device=x.device))
    trial.try_kernels(DEVICE)  # a share of 0 takes none of them, one of 1 all
    assert of(DEVICE).fuses
    trial._problem.cache_clear()
    monkeypatch.setattr(rows, "rows_drawn", lambda x: torch.full((*x.shape[:-1], 1), 2.0, device=x.device))
    with pytest.warns(
        RuntimeWarning, match="without Triton's kernels.*mixing of rows on c.* does not compute what torch"
    ):
        trial.try_kernels(DEVICE)
    assert not of(DEVICE).fuses


def test_a_compiler_that_refuses_is_no_obstacle_to_learning(
    tiny_vit: Make, random_images: Make, quick_recipe: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fimaq_deploy.calibration.fused import softmax

    monkeypatch.setattr(softmax, "_forward", None)
    recipe = quick_recipe(reconstruction={"iterations": 2, "rounding": "straight_through"})
    with pytest.warns(RuntimeWarning, match="fake quantization of a softmax failed on c.*: TypeError: 'NoneType'"):
        quantized = quantize(tiny_vit().to(DEVICE), random_images(8), recipe, device=DEVICE)
    assert not of(DEVICE).fuses
    assert torch.isfinite(quantized(random_images(2).to(DEVICE))).all()
    trial.try_kernels(DEVICE)  # said once


@pytest.mark.parametrize("name", list(trial._TRIALS))
def test_each_trial_looks_at_results_that_tell_something(name: str) -> None:
    with torch.enable_grad():
        for found, expected in trial._TRIALS[name](DEVICE):
            assert found.shape == expected.shape and expected.norm() > 0
            assert trial._near(found, expected) and not trial._near(found * 1.01, expected)


def test_a_device_without_kernels_is_not_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PLACE, "fuses", False)
    for name in trial._TRIALS:
        monkeypatch.setitem(trial._TRIALS, name, lambda device: pytest.fail("tried"))
    trial.try_kernels(DEVICE)
