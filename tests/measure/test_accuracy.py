from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from fimaq_deploy.data.bundled import bundled_images
from fimaq_deploy.errors import UserError
from fimaq_deploy.measure.accuracy import agreement, evaluate, largest_difference, predicted, top1
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
    found = evaluate(predict, images, labels=[0, 1, 6, 1], batch_size=batch_size, keep_outputs=True)
    assert (found.images, found.top1, found.top5) == (4, 50.0, 75.0)
    assert found.predictions.tolist() == [0, 1, 2, 3]
    assert found.labels is not None
    assert found.labels.tolist() == [0, 1, 6, 1]
    assert found.outputs is not None
    assert np.array_equal(found.outputs["output"], images.numpy().reshape(4, 8))


def test_trained_model_reads_digits() -> None:
    model, source = load_model("vit_digits"), bundled_images("digits", "test")
    done: list[int] = []
    found = evaluate(model, source, batch_size=200, progress=done.append)
    assert done == [200, 400, 600]
    assert found.top1 is not None
    assert found.top1 > 90
    assert found.interval is not None
    assert found.interval[0] < found.top1 < found.interval[1]
    assert found.outputs is None


def test_module_and_callable_agree_on_a_real_model() -> None:
    model, source = load_model("swin_digits"), bundled_images("digits", "test", 40)

    def run(images: NDArray[np.float32]) -> torch.Tensor:
        return model(torch.from_numpy(images))

    found = evaluate(run, source, against=model)
    assert found.value("agreement") == 100
    assert found.largest_difference == found.value("kl") == 0


def test_module_runs_in_eval_and_inference_mode_and_is_left_as_it_was() -> None:
    model = Echo()
    model.train()
    model.drop.eval()
    evaluate(model, one_hot(3, 0))
    assert model.seen == [(False, True)]
    assert (model.training, model.drop.training) == (True, False)


def test_without_labels_there_is_no_accuracy() -> None:
    found = evaluate(echo, [one_hot(8, 3, 4), one_hot(8, 5)], task="classes")
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


@pytest.mark.parametrize("shape", [(1, 3), (3,), (2, 0), ()])
def test_outputs_without_an_entry_for_each_image(shape: tuple[int, ...]) -> None:
    with pytest.raises(UserError, match=r"for 2 images: expected \(2, \.\.\.\)"):
        evaluate(lambda images: np.zeros(shape, np.float32), one_hot(3, 0, 1))


def test_nobody_takes_an_answer_by_argmax_from_what_is_no_classifier() -> None:
    for output in (echo, lambda images: echo(images)[:, :1], lambda images: images):
        found = evaluate(output, one_hot(8, 3, 4), against=output)
        assert found.predictions is None
        assert found.value("agreement") is None


def test_any_output_is_measured_against_the_original() -> None:
    """A tuple of logits, a map and a number, each by its own kind and name; the second model is half as large."""

    def several(factor: float) -> Any:
        def run(images: NDArray[np.float32]) -> dict[str, Any]:
            return {"logits": echo(images), "map": factor * images, "age": factor * images[:, 0, 0, 0]}

        return run

    images = torch.randn(40, 1, 3, 8, generator=torch.Generator().manual_seed(0))
    found = evaluate(several(0.5), images, against=several(1.0), batch_size=7)
    assert [(name, task.kind) for name, task in found.tasks.items()] == [
        ("logits", "classes"),
        ("map", "dense"),
        ("age", "regression"),
    ]
    assert found.value("agreement") == 100
    assert found.value("cosine", "map") == pytest.approx(1)
    assert found.value("relative_error", "map") == pytest.approx(50)
    assert found.value("correlation", "age") == pytest.approx(1)
    assert found.value("concordance", "age") == pytest.approx(0.8, abs=0.05)


def test_labels_of_every_kind() -> None:
    images = torch.randn(20, 1, 1, 6, generator=torch.Generator().manual_seed(0))
    truth = (images.flatten(1) > 0.5).long()
    assert evaluate(echo, images, labels=truth).value("map") == 100
    assert evaluate(echo, images, labels=images.flatten(1)).value("mae") == 0
    maps = evaluate(lambda found: found.repeat(2, 1), images, labels=torch.zeros(20, 1, 6).long())
    assert maps.value("miou") == 100
    assert maps.labels is None


def test_labels_that_say_nothing_about_the_output_are_not_used() -> None:
    """Class folders bring labels whatever the model is."""
    found = evaluate(lambda images: images[:, 0, 0, :1], one_hot(8, 0, 1), labels=[0, 1])
    assert (found.tasks["output"].kind, found.labels) == ("regression", None)
    assert found.notes == (
        "labels are int64, as of classes: a regression output is measured against floating-point values; "
        "they are not used",
    )


def test_outputs_of_another_shape_than_the_original_are_refused() -> None:
    with pytest.raises(UserError, match=r"output has shape \(1, 8\) and \(1, 4\) in the original"):
        evaluate(echo, one_hot(8, 0), against=lambda images: echo(images)[:, :4])


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


@pytest.mark.parametrize(("images", "names"), [(20, {"recall1"}), (21, {"recall1", "recall10"}), (2, {"recall1"})])
def test_a_figure_that_says_nothing_of_so_few_images_is_left_out(images: int, names: set[str]) -> None:
    """But for one with a threshold, which has to fire."""
    x = np.random.default_rng(0).standard_normal((images, 1, 4, 4), dtype=np.float32)

    def embedding(images: np.ndarray) -> np.ndarray:
        return images.reshape(len(images), -1)

    found = evaluate(embedding, x, task="embedding", against=embedding).figures
    recalls = {one.figure.name: one.value for one in found if one.figure.name.startswith("recall")}
    assert set(recalls) == names
    assert all((value == 100) == (images > 2) for value in recalls.values())
