"""Correspondence between images, and the positions that moved most."""

from __future__ import annotations

import numpy as np
import pytest
from fixtures.figures import Array, noisy, value

from fimaq_deploy.measure.tasks.dense import dense
from fimaq_deploy.measure.tasks.positions import NEAREST, some, spread

TOKENS = dense(2)


def test_the_nearest_of_the_next_image() -> None:
    own, original = noisy(9, 16)

    def nearest(outputs: Array) -> Array:
        unit = outputs / np.linalg.norm(outputs, axis=-1, keepdims=True)
        return np.stack([(unit[i] @ unit[(i + 1) % len(unit)].T).argmax(1) for i in range(len(unit))])

    expected = 100 * np.mean(nearest(own) == nearest(original))
    assert value(TOKENS, "nearest", own, original, batch=1) == pytest.approx(expected, abs=1)
    assert 20 < expected < 80


def test_positions_that_the_original_finds_as_near_are_as_good() -> None:
    patches = np.zeros((4, 3, 2), np.float32)
    patches[:, 0], patches[:, 1:] = (1, 0), (0, 1)  # two alike
    swapped = patches[:, [0, 2, 1]]
    assert value(TOKENS, "nearest", swapped, patches) == 100
    assert value(TOKENS, "nearest", patches[:, [1, 0, 2]], patches) < 70


def test_other_answers_find_others() -> None:
    _, original = noisy(9, 16)
    assert value(TOKENS, "nearest", np.roll(original, 1, axis=0), original) < 30
    assert value(TOKENS, "nearest", np.broadcast_to(original[:1], original.shape), original) < 40


def test_an_image_alone_has_none_beside_it() -> None:
    one = noisy(9, 16)[1][:1]
    assert np.isnan(value(TOKENS, "nearest", one, one))


def test_one_position_in_twenty_tells_the_worst() -> None:
    _, original = noisy(20, 16)
    own = original.copy()
    own[:, 3] *= -1
    assert value(TOKENS, "worst", original, original) == pytest.approx(1)
    assert value(TOKENS, "worst", own, original) < 0.95 < value(TOKENS, "cosine", own, original) + 0.1
    own[:, 5] *= -1
    assert value(TOKENS, "worst", own, original) == pytest.approx(-0.9, abs=0.2)


def test_few_positions_are_looked_at_evenly() -> None:
    assert spread(5, 7).tolist() == [0, 1, 2, 3, 4]
    assert spread(100, 7)[[0, -1]].tolist() == [0, 99]
    assert some(np.zeros((2, 30, 20, 3))).shape == (2, 49, 3)
    assert some(np.zeros((2, 500, 3))).shape == (2, 49, 3)
    assert NEAREST.most == 64
