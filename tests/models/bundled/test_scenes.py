"""The shipped detectors and the segmenter: what they are made of, and that they do what they were trained for."""

from __future__ import annotations

import pytest
import torch

from fimaq_deploy.data.bundled import shipped_images
from fimaq_deploy.measure.accuracy import evaluate
from fimaq_deploy.models.bundled import INSIDE, scenes
from fimaq_deploy.models.detectors import Arranged, arranged
from fimaq_deploy.models.load import load_model

IMAGES = torch.zeros(2, 3, scenes.IMAGE_SIZE, scenes.IMAGE_SIZE)


@pytest.mark.parametrize("name", INSIDE)
def test_they_are_small(name: str) -> None:
    if name == "detr_shapes":
        pytest.importorskip("transformers")
    assert sum(each.numel() for each in INSIDE[name].create().parameters()) < 1_500_000


def test_a_segmenter_scores_every_pixel() -> None:
    with torch.inference_mode():
        assert scenes.segmenter_shapes().eval()(IMAGES).shape == (2, 9, 96, 96)


def test_detectors_answer_what_can_be_arranged() -> None:
    pytest.importorskip("transformers")
    with torch.inference_mode():
        masked = arranged(scenes.maskrcnn_shapes().eval()(IMAGES), (96, 96), most=20)
        queried = arranged(scenes.detr_shapes().eval()(IMAGES), (96, 96), labels=8)
    assert masked["masks"].shape == (2, 20, 96, 96)
    assert queried["boxes"].shape == (2, 25, 4)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "figure", "least"),
    [
        ("maskrcnn_shapes", "ap", 75),
        ("maskrcnn_shapes", "mask_ap", 60),
        ("segmenter_shapes", "miou", 60),
        ("detr_shapes", "ap50", 50),
    ],
)
def test_they_do_what_they_were_trained_for(name: str, figure: str, least: float) -> None:
    if name == "detr_shapes":
        pytest.importorskip("transformers")
    found = evaluate(Arranged(load_model(name)), shipped_images(name, "test", 100))
    value = found.value(figure)
    assert value is not None and value > least
