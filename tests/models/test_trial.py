"""What a blank image shows about a model."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from fixtures.detectors import SIDE, detector, segmenter
from torch import Tensor, nn

from fimaq_deploy.models.trial import try_out

SHAPE = (3, SIDE, SIDE)


class Answering(nn.Module):
    """Whatever it was made with."""

    def __init__(self, answer: Any) -> None:
        super().__init__()
        self.weight, self.answer = nn.Parameter(torch.zeros(1)), answer

    def forward(self, images: Tensor) -> Any:
        return self.answer


QUERIES = {"logits": torch.zeros(1, 5, 7), "pred_boxes": torch.zeros(1, 5, 4)}
ARRANGED = {"boxes": torch.zeros(1, 4, 4), "scores": torch.zeros(1, 4), "labels": torch.zeros(1, 4)}


@pytest.mark.parametrize(
    ("answer", "labels"),
    [
        (QUERIES, range(7)),
        (ARRANGED, None),
        ([{"boxes": torch.zeros(0, 4), "scores": torch.zeros(0), "labels": torch.zeros(0)}], None),
        (torch.zeros(1, 3, 8, 8), None),
        ((torch.zeros(1, 3), torch.zeros(1, 4, 4)), None),
    ],
)
def test_answers_about_places(answer: Any, labels: range | None) -> None:
    found = try_out(Answering(answer), SHAPE)
    assert found.about_places
    assert found.labels == labels


@pytest.mark.parametrize(
    "answer", [torch.zeros(1, 3), {"logits": torch.zeros(1, 3)}, (torch.zeros(1), torch.zeros(1, 2))]
)
def test_vectors_are_not_about_places(answer: Any) -> None:
    found = try_out(Answering(answer), SHAPE)
    assert not found.about_places
    assert found.labels is None


def test_a_model_as_it_is() -> None:
    model = detector().eval()
    assert try_out(model, SHAPE).labels == range(1, 3)
    assert not model.roi_heads.box_predictor._forward_hooks  # type: ignore[union-attr, operator]
    assert try_out(segmenter(), SHAPE).about_places


def test_a_model_that_cannot_take_it_tells_nothing() -> None:
    found = try_out(segmenter(), (3, 7, 7))
    assert found.answer is None
    assert found.about_places and found.labels is None
