from __future__ import annotations

import numpy as np
import pytest

from fimaq_deploy.data import shapes


def test_images_and_labels() -> None:
    images, labels = shapes.generate("test", 300)
    assert images.shape == (300, 3, 32, 32)
    assert images.dtype == np.uint8
    assert labels.dtype == np.int64
    assert set(labels) == set(range(24))
    assert len(shapes.CLASSES) == 24


def test_more_images_extend_a_split() -> None:
    few, few_labels = shapes.generate("calibration", 10)
    many, many_labels = shapes.generate("calibration", 260)
    assert np.array_equal(few, many[:10])
    assert np.array_equal(few_labels, many_labels[:10])


def test_splits_are_disjoint() -> None:
    found = [
        {image.tobytes() for image in shapes.generate(split, 256)[0]} for split in ("train", "calibration", "test")
    ]
    assert len(set.union(*found)) == 3 * 256


def test_none() -> None:
    images, labels = shapes.generate("test", 0)
    assert images.shape == (0, 3, 32, 32)
    assert labels.shape == (0,)


@pytest.mark.parametrize("label", range(24))
def test_every_class_has_contrast(label: int) -> None:
    images, labels = shapes.generate("test", 256)
    assert images[labels == label].std() > 20
