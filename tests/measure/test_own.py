"""The user's own figure: what it is given, what it may return, and what becomes of what it raises."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fimaq_deploy.errors import UserError
from fimaq_deploy.measure.own import name_of, own_figures

IMAGES = np.arange(24, dtype=np.float32).reshape(2, 3, 2, 2)


def total(images: Any) -> Any:
    return images.reshape(len(images), -1).sum(1)


def returning(found: Any) -> Callable[[Any], Any]:
    def recall(predict: Any) -> Any:
        return found

    return recall


@pytest.mark.parametrize("number", [2, 2.0, np.float32(2), np.int64(2), np.array(2.0), torch.tensor(2.0)], ids=repr)
def test_a_number_goes_by_the_functions_name(number: Any) -> None:
    found = own_figures(returning(number), total)
    assert found == {"recall": 2.0}
    assert type(found["recall"]) is float


def test_several_keep_their_names_and_order() -> None:
    assert list(own_figures(returning({"b": 1, "a": np.float64(2)}), total).items()) == [("b", 1.0), ("a", 2.0)]


def test_what_is_not_finite_is_kept() -> None:
    found = own_figures(returning({"a": float("nan"), "b": float("inf")}), total)
    assert np.isnan(found["a"])
    assert found["b"] == float("inf")


@pytest.mark.parametrize(
    "found", [None, "2", True, np.bool_(True), [1.0], np.ones(2), {}, {"a": None}, {"a": "2"}, {1: 2.0}], ids=repr
)
def test_anything_else_is_refused_in_one_line(found: Any) -> None:
    with pytest.raises(UserError, match=r"^recall returned .*: expected a number, or numbers by name$"):
        own_figures(returning(found), total)


def test_what_the_function_raises_is_left_as_it_is() -> None:
    def broken(predict: Any) -> float:
        raise LookupError("no such image")

    with pytest.raises(LookupError, match="no such image"):
        own_figures(broken, total)


@pytest.mark.parametrize(
    "given", [IMAGES, torch.from_numpy(IMAGES), IMAGES.astype(np.float64), IMAGES.astype(np.uint8)]
)
def test_images_are_arrays_or_tensors_of_any_type_and_outputs_float32_arrays(given: Any) -> None:
    seen: list[Any] = []

    def look(predict: Any) -> float:
        seen.append(predict(given))
        return 0.0

    own_figures(look, total)
    assert isinstance(seen[0], np.ndarray)
    assert seen[0].dtype == np.float32
    assert seen[0].tolist() == IMAGES.reshape(2, -1).sum(1).tolist()


def test_several_outputs_come_by_name() -> None:
    def spread(predict: Any) -> dict[str, float]:
        return {name: output.sum() for name, output in predict(IMAGES).items()}

    assert own_figures(spread, lambda images: {"a": total(images), "b": 2 * total(images)}) == {"a": 276, "b": 552}


class Module(nn.Module):
    """Says whether it is in training, for each image."""

    def forward(self, images: Tensor) -> Tensor:
        return torch.full((len(images),), float(self.training))


def test_a_module_predicts_in_eval_mode_and_is_as_it_was_afterwards() -> None:
    module = Module().train()

    def training(predict: Any) -> float:
        return predict(IMAGES).mean()

    assert own_figures(training, module) == {"training": 0.0}
    assert module.training


def test_what_has_no_name_goes_by_its_type() -> None:
    assert name_of(partial(returning, 1.0)) == "partial"
    assert name_of(total) == "total"
