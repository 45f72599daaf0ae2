from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fixtures.objects import packed, true_objects
from PIL import Image

from fimaq_deploy.data.items import Items, as_labels, has_labels
from fimaq_deploy.data.pixels import Pixels
from fimaq_deploy.data.prepare import Preparation
from fimaq_deploy.errors import UserError
from fimaq_deploy.models.describe import ModelInfo

IMAGES = torch.rand(2, 3, 4, 4)


def read(item: Any, **options: Any) -> Any:
    return Items(Pixels(), **options)(item, "batch 0")


@pytest.mark.parametrize(
    "item",
    [
        (IMAGES, [3, 4]),
        [IMAGES, torch.tensor([3, 4])],
        (IMAGES.numpy(), np.array([3, 4], np.uint8)),
        (IMAGES, (3, 4), ["a.png", "b.png"]),
        ([IMAGES[0], IMAGES[1]], [3, 4]),
        ((IMAGES[0], IMAGES[1]), (torch.tensor(3), torch.tensor(4))),
        {"pixel_values": IMAGES, "labels": torch.tensor([3, 4])},
        {"image": IMAGES, "label": [3, 4], "path": ["a", "b"]},
        {"index": [0, 1], "images": IMAGES, "targets": (3, 4)},
        {"spectrum": IMAGES, "species": [3, 4]},
    ],
    ids=range(10),
)
def test_pairs_and_mappings(item: Any) -> None:
    batch = read(item)
    assert torch.equal(batch.images, IMAGES)
    assert batch.labels.tolist() == [3, 4]
    assert batch.labels.dtype == torch.int64
    assert has_labels(item)


@pytest.mark.parametrize("item", [IMAGES, [IMAGES], (IMAGES,), [IMAGES[0], IMAGES[1]], {"x": IMAGES}, {"any": IMAGES}])
def test_images_alone(item: Any) -> None:
    batch = read(item)
    assert torch.equal(batch.images, IMAGES)
    assert batch.labels is None
    assert not has_labels(item)


def test_a_pair_of_one_image_and_its_label() -> None:
    batch = read((IMAGES[0], 4))
    assert batch.images.shape == (1, 3, 4, 4)
    assert batch.labels.tolist() == [4]


@pytest.mark.parametrize("labels", ["cat", ["cat", "dog"], object(), [{"boxes": 1}, {}], [[1], [2, 3]], 7])
def test_labels_are_read_only_where_they_are_wanted(labels: Any) -> None:
    assert read((IMAGES, labels), keep_labels=False).labels is None
    with pytest.raises(UserError, match=r"batch 0: labels are .*: expected 2 numbers, one an image"):
        read((IMAGES, labels))


@pytest.mark.parametrize(
    ("labels", "dtype"),
    [([0.5, 1.5], torch.float32), (np.ones((2, 5), bool), torch.int64), (np.zeros((2, 4, 4), np.int16), torch.int64)],
)
def test_labels_of_other_tasks(labels: Any, dtype: torch.dtype) -> None:
    found = as_labels(labels, 2, "labels")
    assert found is not None
    assert found.dtype == dtype
    assert found.shape == np.shape(labels)


def test_pictures_are_prepared_like_files(colour: ModelInfo, tmp_path: Path) -> None:
    picture = Image.new("RGB", (40, 30), (255, 0, 255))
    picture.save(tmp_path / "a.png")
    prepared = Items(Pixels(colour), Preparation(colour))
    expected = torch.tensor([1.0, -1.0, 1.0]).view(1, 3, 1, 1).expand(2, 3, 16, 16)
    for item in ([picture, picture], [str(tmp_path / "a.png"), tmp_path / "a.png"], ([picture, picture], [1, 2])):
        assert torch.equal(prepared(item, "batch 0").images, expected)
    assert torch.equal(prepared({"image": picture, "label": 3}, "item 0").images, expected[:1])


def test_a_picture_without_a_known_model(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="batch 0 is a Image: expected an array"):
        read(Image.new("RGB", (4, 4)))
    with pytest.raises(UserError, match="batch 0 is a str: expected an array"):
        read("a.png")


def test_a_file_that_is_no_picture(colour: ModelInfo, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_text("no image")
    for name, reason in (("a.png", "no image that Pillow opens"), ("absent.png", "No such file")):
        with pytest.raises(UserError, match=reason):
            Items(Pixels(colour), Preparation(colour))(tmp_path / name, "batch 0")


@pytest.mark.parametrize("item", [3, None, object(), [], {}, {"labels": [1]}, {"a": IMAGES, "b": IMAGES}, "", [None]])
def test_no_images(item: Any) -> None:
    with pytest.raises(UserError) as caught:
        read(item)
    assert "\n" not in str(caught.value)


def test_labels_may_be_objects() -> None:
    found = true_objects(3)
    assert np.array_equal(as_labels(found, 3, "labels"), packed(found))
    without = {"boxes": found["boxes"], "labels": found["labels"]}
    labels = as_labels(without, 3, "labels")
    assert labels is not None and tuple(labels.shape) == (3, 5, 6)
    with pytest.raises(UserError, match=r"expected \(3, objects, 4\)"):
        as_labels({**without, "boxes": found["boxes"][:, :2]}, 3, "labels")
