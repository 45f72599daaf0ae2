from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from fimaq_deploy.data.bundled import bundled_images
from fimaq_deploy.errors import UserError
from fimaq_deploy.measure.accuracy import agreement, evaluate, largest_difference, predicted, top1, wilson_interval
from fimaq_deploy.models.load import load_model


class Echo(nn.Module):
    """An image's pixels are its logits."""

    def __init__(self) -> None:
        super().__init__()
        self.drop = nn.Dropout(0.9)
        self.seen: list[tuple[bool, bool]] = []

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.seen.append((self.training, torch.is_inference_mode_enabled()))
        return self.drop(images.flatten(1))


def echo(images: NDArray[np.float32]) -> NDArray[np.float32]:
    return images.reshape(len(images), -1)


def one_hot(classes: int, *answers: int) -> torch.Tensor:
    """Images (N, 1, 1, classes) that Echo takes for `answers`, with falling logits for the classes after."""
    distance = (torch.arange(classes)[None] - torch.tensor(answers)[:, None]) % classes
    return -distance.float()[:, None, None]


@pytest.mark.parametrize("predict", [Echo(), echo], ids=["module", "callable"])
@pytest.mark.parametrize("batch_size", [1, 3, 50])
def test_accuracy(predict: Any, batch_size: int) -> None:
    images = one_hot(8, 0, 1, 2, 3)
    found = evaluate(predict, images, labels=[0, 1, 6, 1], batch_size=batch_size, keep_logits=True)
    assert (found.images, found.top1, found.top5) == (4, 50.0, 75.0)
    assert found.predictions.tolist() == [0, 1, 2, 3]
    assert found.labels is not None
    assert found.labels.tolist() == [0, 1, 6, 1]
    assert np.array_equal(found.logits, images.numpy().reshape(4, 8))


def test_trained_model_reads_digits() -> None:
    model, source = load_model("vit_digits"), bundled_images("digits", "test")
    done: list[int] = []
    found = evaluate(model, source, batch_size=200, progress=done.append)
    assert done == [200, 400, 600]
    assert found.top1 is not None
    assert found.top1 > 90
    assert found.interval is not None
    assert found.interval[0] < found.top1 < found.interval[1]
    assert found.logits is None


def test_module_and_callable_agree_on_a_real_model() -> None:
    model, source = load_model("swin_digits"), bundled_images("digits", "test", 40)

    def run(images: NDArray[np.float32]) -> torch.Tensor:
        return model(torch.from_numpy(images))

    a, b = (evaluate(predict, source, keep_logits=True) for predict in (model, run))
    assert agreement(a.predictions, b.predictions) == 100
    assert a.logits is not None
    assert b.logits is not None
    assert largest_difference(a.logits, b.logits) == 0


def test_module_runs_in_eval_and_inference_mode_and_is_left_as_it_was() -> None:
    model = Echo()
    model.train()
    model.drop.eval()
    evaluate(model, one_hot(3, 0))
    assert model.seen == [(False, True)]
    assert (model.training, model.drop.training) == (True, False)


def test_without_labels_there_is_no_accuracy() -> None:
    found = evaluate(echo, [one_hot(8, 3, 4), one_hot(8, 5)])
    assert (found.top1, found.top5, found.interval, found.labels) == (None, None, None, None)
    assert found.predictions.tolist() == [3, 4, 5]


def test_top5_needs_more_than_five_classes() -> None:
    assert evaluate(echo, one_hot(5, 0), labels=[4]).top5 is None
    assert evaluate(echo, one_hot(6, 0), labels=[4]).top5 == 100
    assert evaluate(echo, one_hot(6, 0), labels=[5]).top5 == 0


def test_ties_go_to_the_lower_class() -> None:
    found = evaluate(echo, torch.zeros(2, 1, 1, 7), labels=[0, 4])
    assert (found.top1, found.top5) == (50.0, 100.0)
    assert evaluate(echo, torch.zeros(1, 1, 1, 7), labels=[5]).top5 == 0


def test_logits_that_are_not_finite_are_wrong() -> None:
    def overflowing(images: NDArray[np.float32]) -> NDArray[np.float32]:
        logits = echo(images).copy()
        logits[0, 0] = np.nan
        return logits

    found = evaluate(overflowing, one_hot(8, 0, 1), labels=[0, 1])
    assert (found.top1, found.top5, found.not_finite) == (50.0, 50.0, 1)
    assert found.predictions.tolist() == [-1, 1]
    assert agreement(found.predictions, found.predictions) == 50


def test_label_that_is_no_class() -> None:
    with pytest.raises(UserError, match="label 8: expected one of the 8 classes that the model outputs"):
        evaluate(echo, one_hot(8, 0, 1), labels=[0, 8])
    with pytest.raises(UserError, match="label -1"):
        evaluate(echo, one_hot(8, 0, 1), labels=[0, -1])


@pytest.mark.parametrize("shape", [(2,), (1, 3), (2, 3, 1), (2, 0)])
def test_logits_of_wrong_shape(shape: tuple[int, ...]) -> None:
    with pytest.raises(UserError, match=r"for 2 images: expected \(2, classes\)"):
        evaluate(lambda images: np.zeros(shape, np.float32), one_hot(3, 0, 1))


def test_bad_images() -> None:
    with pytest.raises(UserError, match="images has size 0"):
        evaluate(echo, torch.zeros(0, 3, 4, 4))
    with pytest.raises(UserError, match="batch size 0"):
        evaluate(echo, one_hot(3, 0), batch_size=0)


def test_agreement() -> None:
    assert agreement(np.array([1, 2, 3, 4]), np.array([1, 2, 0, 4])) == 75
    with pytest.raises(ValueError, match="cannot compare"):
        agreement(np.array([1]), np.array([1, 2]))
    with pytest.raises(ValueError, match="cannot compare"):
        agreement(np.array([], int), np.array([], int))


def test_largest_difference() -> None:
    a, b = np.float32([[1, 2], [3, 4]]), np.float32([[1, 2.5], [1, 4]])
    assert largest_difference(a, b) == 2
    b[0, 0] = np.nan
    assert np.isnan(largest_difference(a, b))
    with pytest.raises(ValueError, match="cannot compare"):
        largest_difference(a, b[:1])


def test_top1_and_predicted() -> None:
    logits = np.float32([[0, 1], [1, 0], [np.inf, 0]])
    assert predicted(logits).tolist() == [1, 0, -1]
    assert top1(logits[:2], np.array([1, 1])) == 50


@pytest.mark.parametrize(
    ("hits", "count", "low", "high"),
    [
        (81, 263, 25.53, 36.62),
        (15, 148, 6.24, 16.05),
        (0, 20, 0.0, 16.11),
        (1, 29, 0.61, 17.18),
        (20, 20, 83.89, 100.0),
    ],
)
def test_wilson_interval_of_known_cases(hits: int, count: int, low: float, high: float) -> None:
    """R. G. Newcombe, Statistics in Medicine 17 (1998), 857-872, table I, method 3; the last is the third mirrored."""
    assert wilson_interval(hits, count) == pytest.approx((low, high), abs=5e-3)
