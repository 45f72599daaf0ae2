from __future__ import annotations

from typing import get_args

import numpy as np
import pytest

from fimaq_deploy.data import digits


@pytest.mark.parametrize(("split", "count"), [("train", 941), ("calibration", 256), ("test", 600)])
def test_split(split: digits.Split, count: int) -> None:
    images, labels = digits.load(split)
    assert images.shape == (count, 1, 16, 16)
    assert images.dtype == np.uint8
    assert images.max() == 255
    assert set(labels) == set(range(10))


def test_splits_share_no_image_and_cover_the_data() -> None:
    found = [image.tobytes() for split in get_args(digits.Split) for image in digits.load(split)[0]]
    assert len(found) == 1797
    assert len(set(found)) == len(found)


def test_pixels_are_those_of_scikit_learn() -> None:
    datasets = pytest.importorskip("sklearn.datasets")
    source = datasets.load_digits()
    expected = {(pixels.astype(np.uint16) * 255 // 16).astype(np.uint8).tobytes() for pixels in source.images}
    images = digits.load("test")[0]
    assert {image[0, ::2, ::2].tobytes() for image in images} <= expected
