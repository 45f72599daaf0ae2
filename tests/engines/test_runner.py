from __future__ import annotations

import numpy as np
import pytest

from fimaq_deploy.engines.runner import Runner
from fimaq_deploy.errors import UserError

SHAPE = (None, 3, 4, None)


def means(images: np.ndarray) -> np.ndarray:
    assert images.flags.c_contiguous
    return images.mean((2, 3))


RUNNER = Runner("means", SHAPE, means)


def test_images_go_in_whole_and_logits_come_out() -> None:
    images = np.random.default_rng(0).standard_normal((2, 4, 5, 3), dtype=np.float32).transpose(0, 3, 1, 2)
    np.testing.assert_allclose(RUNNER(images), images.mean((2, 3)), atol=1e-6)
    assert list(RUNNER.outputs(images)) == ["logits"]
    np.testing.assert_array_equal(RUNNER.outputs(images)["logits"], RUNNER(images))


def test_outputs_of_its_own_are_returned_by_name() -> None:
    both = Runner("both", SHAPE, means, lambda images: {"logits": means(images), "tokens": images})
    assert list(both.outputs(np.zeros((1, 3, 4, 4), np.float32))) == ["logits", "tokens"]


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ([[1.0]], "means: images are a list, expected a numpy array"),
        (np.zeros((1, 3, 4, 4)), "means: images are float64, expected float32"),
        (np.zeros((3, 4, 4), np.float32), r"images have shape \(3, 4, 4\), expected \(N, 3, 4, N\)"),
        (np.zeros((1, 1, 4, 4), np.float32), r"images have shape \(1, 1, 4, 4\), expected \(N, 3, 4, N\)"),
        (np.zeros((0, 3, 4, 4), np.float32), "the batch holds no images"),
    ],
)
@pytest.mark.parametrize("call", [RUNNER, RUNNER.outputs])
def test_what_does_not_fit_is_one_line(call, images, message) -> None:
    with pytest.raises(UserError, match=message) as raised:
        call(images)
    assert "\n" not in str(raised.value)


def test_it_says_what_it_takes() -> None:
    assert repr(RUNNER) == "Runner(means, images (N, 3, 4, N))"
