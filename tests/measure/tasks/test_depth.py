"""Depth: the errors of pixels that were measured, image by image."""

from __future__ import annotations

import numpy as np
import pytest
from fixtures.figures import value
from numpy.typing import NDArray

from fimaq_deploy.measure.tasks.depth import DEPTH


def maps() -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    random = np.random.default_rng(0)
    true = random.uniform(1, 5, (30, 6, 8)).astype(np.float32)
    own = true * random.uniform(0.6, 1.5, true.shape).astype(np.float32)
    return own, true


@pytest.mark.parametrize("channel", [False, True])
def test_relative_errors_and_near_pixels(channel: bool) -> None:
    own, true = maps()
    given = own[:, None] if channel else own
    ratio = np.maximum(own / true, true / own)
    assert value(DEPTH, "abs_rel", given, true) == pytest.approx(100 * np.mean(np.abs(own - true) / true), rel=1e-5)
    assert value(DEPTH, "delta1", given, true) == pytest.approx(100 * np.mean(ratio < 1.25), rel=1e-5)


def test_pixels_that_were_not_measured_do_not_count() -> None:
    own, true = maps()
    whole = value(DEPTH, "abs_rel", own[:, :3], true[:, :3])
    own[:, 3:] = 99
    for unknown in (0.0, -1.0, np.nan, np.inf):
        true[:, 3:] = unknown
        assert value(DEPTH, "abs_rel", own, true) == pytest.approx(whole, rel=1e-6)


def test_an_image_without_depth_does_not_count() -> None:
    own, true = maps()
    whole = value(DEPTH, "abs_rel", own[1:], true[1:])
    true[0] = 0
    assert value(DEPTH, "abs_rel", own, true) == pytest.approx(whole, rel=1e-6)


def test_a_depth_that_is_not_positive_is_far_off() -> None:
    own, true = maps()
    assert value(DEPTH, "delta1", np.zeros_like(own), true) == 0


def test_labels_that_are_no_depths_are_refused() -> None:
    own, true = maps()
    assert DEPTH.refuse_labels(own, true) is None
    assert "expected depths" in str(DEPTH.refuse_labels(own, true.astype(np.int64)))
    assert "expected depths" in str(DEPTH.refuse_labels(own, true[:, :2]))
