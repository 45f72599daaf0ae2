"""Pictures for the report: what is shown of the first images, and what each row found in them."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
import pytest
import torch
from fixtures import coco
from fixtures.objects import found_objects, packed, true_objects
from PIL import Image

from fimaq_deploy.data import scenes
from fimaq_deploy.data.bundled import bundled_images
from fimaq_deploy.measure.outputs import Outputs
from fimaq_deploy.measure.tasks import Traits, find_tasks
from fimaq_deploy.pipeline.pictures import SHOWN, glance, to_pictures

IMAGES = bundled_images("scenes", "test", 5).take(5)


def opened(encoded: str) -> Any:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(encoded))))


def pictured(outputs: dict[str, Outputs], labels: Any = None, **options: Any) -> Any:
    tasks = find_tasks(next(iter(outputs.values())), Traits(), labels=labels)
    return to_pictures(glance(IMAGES, outputs, tasks), tasks, coco.info(**options))


def test_the_first_images_with_the_objects_of_each_row() -> None:
    truth = true_objects(5)
    found = found_objects(truth)
    shown = pictured({"a": {"objects": packed(truth)}, "b": {"objects": packed(found)}})
    assert len(shown) == SHOWN
    for number, picture in enumerate(shown):
        assert (picture.width, picture.height) == (96, 96)
        pixels = scenes.generate("test", 5).images[number].transpose(1, 2, 0)
        assert np.abs(opened(picture.image).astype(int) - pixels).mean() < 12
        first, second = picture.answers
        assert (first.row, second.row) == ("a", "b")
        real = truth["labels"][number] >= 0
        assert [one.label for one in first.objects] == [scenes.CLASSES[n] for n in truth["labels"][number][real]]
        assert np.allclose([one.box for one in first.objects], truth["boxes"][number][real])
        sure = (found["labels"][number] >= 0) & (found["scores"][number] >= 0.5)
        assert [one.score for one in second.objects] == pytest.approx(sorted(found["scores"][number][sure])[::-1])
        whose = opened(first.masks)
        assert np.array_equal(whose > 0, truth["masks"][number][real].any(0))
        assert np.array_equal(whose == 1, truth["masks"][number][real][0]), "the first lies on top of the others"
        assert opened(second.masks).max() <= len(second.objects)


def test_objects_without_masks_have_none() -> None:
    boxes = {name: found for name, found in true_objects(5).items() if name != "masks"}
    assert {answer.masks for one in pictured({"a": {"objects": packed(boxes)}}) for answer in one.answers} == {None}


def test_labels_without_a_name_are_numbers() -> None:
    (first, *_) = pictured({"a": {"objects": packed(true_objects(5))}}, names=())
    assert all(one.label.startswith("label ") for one in first.answers[0].objects)


def test_maps_of_classes() -> None:
    maps = scenes.generate("test", 5).maps()
    scores = np.eye(9, dtype=np.float32)[maps].transpose(0, 3, 1, 2)
    (first, *_) = pictured({"a": {"output": scores}}, labels=maps)
    assert np.array_equal(opened(first.answers[0].classes), maps[0])
    assert not first.answers[0].objects


def test_large_images_are_shown_small() -> None:
    large = torch.nn.functional.interpolate(IMAGES, (300, 600))
    tasks = find_tasks({"objects": packed(true_objects(5))}, Traits())
    seen = glance(large, {"a": {"objects": packed(true_objects(5))}}, tasks)
    (first, *_) = to_pictures(seen, tasks, coco.info((300, 600)))
    assert opened(first.image).shape == (128, 256, 3)
    assert (first.width, first.height) == (600, 300)


def test_other_answers_are_not_shown() -> None:
    assert pictured({"a": {"output": np.zeros((5, 9), np.float32)}}) == []
