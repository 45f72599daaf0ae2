"""What a build starts from is the request's model and images, of an encoder and of one inside."""

from __future__ import annotations

from typing import Any

import torch

from fimaq_deploy.pipeline.loaded import load
from fimaq_deploy.pipeline.request import Request


def test_a_classifier_is_its_own_encoder() -> None:
    found = load(Request.of("vit_digits", targets="onnxruntime-cpu"))
    assert (
        found.whole.is_encoder
        and found.reads is not None
        and found.reads.changes_nothing
        and found.encoder is found.whole.model
    )
    assert found.parameters == sum(one.numel() for one in found.encoder.parameters())
    images = found.calibration.take(2)
    assert images.shape[1:] == found.info.input_shape
    assert torch.equal(found.shown(found.calibration).take(2), images)


def test_around_an_encoder_everything_counts() -> None:
    found = load(Request.of("segmenter_shapes", targets="onnxruntime-cpu"))
    inside = sum(one.numel() for one in found.encoder.parameters())
    assert not found.whole.is_encoder and inside < found.parameters
    assert found.calibration is not found.evaluation


def test_random_weights_are_those_of_the_seed() -> None:
    asked: dict[str, Any] = {"weights": "random", "targets": "onnxruntime-cpu"}
    one, same, other = (load(Request.of("vit_digits", seed=seed, **asked)).encoder for seed in (0, 0, 1))
    pairs = [torch.equal(*(each.get_parameter("head.weight") for each in (one, another))) for another in (same, other)]
    assert pairs == [True, False]
