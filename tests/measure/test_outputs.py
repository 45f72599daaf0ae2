from __future__ import annotations

from collections import OrderedDict, namedtuple
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from fixtures.objects import found_objects, packed, true_objects
from torch import Tensor, nn

from fimaq_deploy.errors import UserError
from fimaq_deploy.measure.outputs import named_like, named_outputs, running


@dataclass
class Answer:
    """As Hugging Face's ModelOutput: what was not computed is None."""

    loss: Tensor | None
    logits: Tensor
    hidden: tuple[Tensor, Tensor]


PAIR = namedtuple("PAIR", "boxes scores")
A, B = torch.ones(2, 3), torch.zeros(2, 4, 5)


@pytest.mark.parametrize(
    ("found", "names"),
    [
        (A, ["output"]),
        (A.numpy(), ["output"]),
        ((A, B), ["output_0", "output_1"]),
        ([A], ["output_0"]),
        (PAIR(A, B), ["boxes", "scores"]),
        (OrderedDict(z=A, a=B), ["z", "a"]),
        ({"x": A, "more": (A, {"y": B})}, ["x", "more.output_0", "more.output_1.y"]),
        (Answer(None, A, (B, B)), ["logits", "hidden.output_0", "hidden.output_1"]),
    ],
)
def test_every_output_has_a_name(found: Any, names: list[str]) -> None:
    assert list(named_outputs(found, 2)) == names


def test_a_model_output_of_hugging_face_is_a_mapping() -> None:
    transformers = pytest.importorskip("transformers.modeling_outputs")
    assert list(named_outputs(transformers.ImageClassifierOutput(logits=A), 2)) == ["logits"]


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [(torch.float16, "float32"), (torch.bfloat16, "float32"), (torch.float64, "float32"), (torch.int64, "int64")],
)
def test_floats_are_float32_and_integers_stay(dtype: torch.dtype, expected: str) -> None:
    assert named_outputs(A.to(dtype), 2)["output"].dtype == expected


@pytest.mark.parametrize("found", [torch.ones(3, 3), torch.tensor(1.0), torch.ones(2, 0), {"loss": torch.ones(3)}])
def test_an_output_that_has_no_entry_for_each_image_is_refused(found: Any) -> None:
    with pytest.raises(UserError, match=r"for 2 images: expected \(2, \.\.\.\)"):
        named_outputs(found, 2)


@pytest.mark.parametrize(
    ("found", "word"), [(None, "nothing"), ((), "nothing"), ("x", "a str as output"), ((A, 3), "a int")]
)
def test_what_is_no_array_is_refused(found: Any, word: str) -> None:
    with pytest.raises(UserError, match=word):
        named_outputs(found, 2)


def test_outputs_are_matched_by_name_or_by_place() -> None:
    a, b = np.zeros(1), np.ones(1)
    assert named_like({"b": b, "a": a}, ["a", "b"], "x") == {"a": a, "b": b}
    assert named_like({"0": a, "1": b}, ["a", "b"], "x") == {"a": a, "b": b}
    with pytest.raises(UserError, match="the engine returns 0: expected as many outputs as a, b"):
        named_like({"0": a}, ["a", "b"], "the engine")


def test_a_module_is_run_in_eval_mode_and_left_as_it_was() -> None:
    model = nn.Sequential(nn.Dropout(0.9), nn.Flatten()).train()
    with running(model) as run:
        assert (run(torch.ones(2, 1, 2, 2))["output"] == 1).all()
    assert model.training and model[0].training


def test_objects_are_one_output() -> None:
    found = found_objects(true_objects(2))
    outputs = named_outputs({"extra": np.zeros((2, 3)), **found}, 2)
    assert list(outputs) == ["objects", "extra"]
    assert np.array_equal(outputs["objects"], packed(found))


@pytest.mark.parametrize("name", ["boxes", "labels", "masks"])
def test_objects_that_do_not_fit_each_other_are_refused(name: str) -> None:
    found = found_objects(true_objects(2))
    with pytest.raises(UserError, match=r"expected \(images, objects"):
        named_outputs({**found, name: found[name][:, :3]}, 2)
