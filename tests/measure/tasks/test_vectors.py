"""Cosines and relative errors, also where a vector is zero."""

from __future__ import annotations

import numpy as np
import pytest
from fixtures.figures import Array, noisy, value

from fimaq_deploy.measure.resampling import measured
from fimaq_deploy.measure.tasks.embedding import EMBEDDING
from fimaq_deploy.measure.tasks.vectors import EXPLAINED, cosines, relative_errors


def test_cosine_and_relative_error() -> None:
    own, original = np.float32([[3, 4], [0, 0], [0, 0]]), np.float32([[4, 3], [0, 0], [1, 0]])
    assert value(EMBEDDING, "cosine", own, original) == pytest.approx((24 / 25 + 1 + 0) / 3)
    assert value(EMBEDDING, "relative_error", own, original) == pytest.approx(100 * (np.sqrt(2) / 5 + 0 + 1) / 3)


def test_positions_of_an_image_are_averaged() -> None:
    own, original = noisy(3, 5, 4)
    found, errors = cosines(own, original), relative_errors(own, original)
    assert found.shape == errors.shape == (len(own),)
    a, b = own[6].reshape(-1, 4).astype(float), original[6].reshape(-1, 4).astype(float)
    assert found[6] == pytest.approx(np.mean([x @ y / np.sqrt((x @ x) * (y @ y)) for x, y in zip(a, b, strict=True)]))
    expected = [np.sqrt(((x - y) ** 2).sum() / (y**2).sum()) for x, y in zip(a, b, strict=True)]
    assert errors[6] == pytest.approx(np.mean(expected))


def test_length_is_an_error_and_no_direction() -> None:
    original = np.float32([[3, 4]])
    assert cosines(2 * original, original)[0] == pytest.approx(1)
    assert relative_errors(2 * original, original)[0] == pytest.approx(1)
    assert cosines(-original, original)[0] == pytest.approx(-1)


def test_large_numbers_do_not_overflow() -> None:
    large = np.float32([[1e30, 1e30]])
    assert cosines(large, large)[0] == pytest.approx(1)
    assert relative_errors(large, large)[0] == 0


def test_what_differs_between_images_is_explained_or_not() -> None:
    """Far from the origin every answer has a large cosine; one for all images explains nothing."""
    random = np.random.default_rng(0)
    original = (30 + random.normal(size=(60, 8))).astype(np.float32)

    def explained(own: Array) -> float:
        return measured("x", EXPLAINED, EXPLAINED.parts(own, original)).value

    assert explained(original) == 100
    constant = np.broadcast_to(original.mean(0), original.shape)
    assert cosines(constant, original).mean() > 0.99
    assert explained(constant) == pytest.approx(0, abs=1e-3)
    assert explained(np.roll(original, 1, axis=0)) == pytest.approx(-100, abs=25)
    noise = 0.5 * random.normal(size=original.shape)
    spread = ((original - original.mean(0)) ** 2).sum()
    assert explained(original + noise) == pytest.approx(100 * (1 - (noise**2).sum() / spread), abs=0.1)
    assert np.isnan(explained(np.full_like(original, np.nan)))


def test_images_that_do_not_differ_are_explained_but_for_rounding() -> None:
    same = np.ones((9, 4), np.float32)
    assert measured("x", EXPLAINED, EXPLAINED.parts(same * (1 + 1e-6), same)).value > 99.9
    assert measured("x", EXPLAINED, EXPLAINED.parts(same * 1.1, same)).value < 0
    assert measured("x", EXPLAINED, EXPLAINED.parts(0 * same, 0 * same)).value == 100
