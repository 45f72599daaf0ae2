"""The shipped divergence of detectors."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from fimaq_deploy.calibration.detections import detections
from fimaq_deploy.errors import UserError


def queries(seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        "logits": torch.randn(2, 5, 3, generator=generator),
        "pred_boxes": torch.rand(2, 5, 4, generator=generator),
    }


def objects(*rows: tuple[float, float, float, float, float, int]) -> dict[str, Tensor]:
    table = torch.tensor(rows, dtype=torch.float32).view(-1, 6)
    return {"boxes": table[:, :4], "scores": table[:, 4], "labels": table[:, 5].long()}


def test_queries_are_compared_by_class_and_box() -> None:
    reference = queries()
    assert detections(reference, reference).item() == 0
    moved = {**reference, "pred_boxes": reference["pred_boxes"] + 0.1}
    other = {**reference, "logits": reference["logits"] + 0.5}
    assert detections(reference, moved) > 0
    assert detections(reference, other) > 0
    # A class's divergence is that of a coin, summed over the classes.
    p, q = (each["logits"].double().sigmoid() for each in (reference, other))
    coins = p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()
    torch.testing.assert_close(detections(reference, other).double(), coins.sum(-1).mean(), rtol=1e-4, atol=1e-6)


def test_what_the_original_is_not_sure_of_may_move() -> None:
    reference = queries()
    unsure = {**reference, "logits": reference["logits"] - 20}
    shift = reference["pred_boxes"] + 0.1
    assert detections(unsure, {**unsure, "pred_boxes": shift}) < 1e-6
    assert detections(reference, {**reference, "pred_boxes": shift}) > 1e-2


@pytest.mark.parametrize(
    ("answer", "cost"),
    [
        (objects((0, 0, 10, 10, 0.9, 1), (20, 20, 30, 30, 0.5, 2)), 0.0),
        (objects((20, 20, 30, 30, 0.5, 2), (0, 0, 10, 10, 0.9, 1)), 0.0),  # in another order
        (objects((0, 0, 10, 10, 0.7, 1), (20, 20, 30, 30, 0.5, 2)), 0.04 / 2),
        (objects((0, 0, 10, 10, 0.9, 1)), 0.25 / 2),  # one is gone
        (objects((0, 0, 10, 10, 0.9, 1), (20, 20, 30, 30, 0.5, 1)), 0.25 / 2),  # of another label
        (objects(), (0.81 + 0.25)),
    ],
)
def test_lists_are_compared_object_by_object(answer: dict[str, Tensor], cost: float) -> None:
    reference = objects((0, 0, 10, 10, 0.9, 1), (20, 20, 30, 30, 0.5, 2))
    assert detections([reference], [answer]).item() == pytest.approx(cost, abs=1e-5)


def test_boxes_that_moved_cost_by_their_size() -> None:
    small, large = objects((0, 0, 10, 10, 1, 1)), objects((0, 0, 100, 100, 1, 1))
    costs = [detections([each], [{**each, "boxes": each["boxes"] + 1}]).item() for each in (small, large)]
    assert 0 < costs[1] < costs[0]


def test_anything_else_is_one_line() -> None:
    with pytest.raises(UserError, match="the model answers a Tensor, expected logits and pred_boxes, or a list"):
        answer: Any = torch.zeros(1)
        detections(answer, answer)
