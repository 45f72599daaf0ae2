"""The kind of each output: told by its shape, the labels, the model, or asked for."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fimaq_deploy.errors import UserError
from fimaq_deploy.measure.tasks import Traits, find_tasks, nothing_told, parse_tasks, task_text


def kinds(shape: tuple[int, ...], traits: Traits | None = None, labels: Any = None, name: str = "output") -> str:
    outputs = {name: np.zeros((3, *shape), np.float32)}
    return find_tasks(outputs, traits or Traits(), labels=None if labels is None else np.asarray(labels))[name].kind


@pytest.mark.parametrize(
    ("shape", "traits", "kind"),
    [
        ((5,), Traits(classes=5), "classes"),
        ((5,), Traits(classes=0), "embedding"),
        ((5,), Traits(classes=9), "embedding"),
        ((5,), Traits(), "embedding"),
        ((5,), Traits(5, problem="multilabel"), "multilabel"),
        ((1,), Traits(classes=1), "regression"),
        ((), Traits(), "regression"),
        ((1,), Traits(), "regression"),
        ((17, 5), Traits(classes=5), "dense"),
        ((5, 4, 4), Traits(), "dense"),
    ],
)
def test_the_kind_follows_from_shape_and_model(shape: tuple[int, ...], traits: Traits, kind: str) -> None:
    assert kinds(shape, traits) == kind


@pytest.mark.parametrize(
    ("labels", "kind"),
    [
        ([0, 1, 2], "classes"),
        ([[0, 1], [1, 1], [0, 0]], "multilabel"),
        ([[0.5, 1], [1, 1], [0, 0]], "regression"),
        ([0.5, 1, 2], "embedding"),
    ],
)
def test_labels_tell_what_the_model_does_not(labels: Any, kind: str) -> None:
    assert kinds((2,), labels=labels) == kind


def test_probabilities_that_sum_to_one_are_classes() -> None:
    shares = np.random.default_rng(0).dirichlet(np.ones(5), 3).astype(np.float32)
    assert find_tasks({"x": shares}, Traits())["x"].kind == "classes"
    assert find_tasks({"x": shares}, Traits(classes=0))["x"].kind == "embedding", "the model knows better"
    assert find_tasks({"x": shares * 2}, Traits())["x"].kind == "embedding"
    assert find_tasks({"x": shares - 0.5}, Traits())["x"].kind == "embedding"


def test_the_contract_in_a_file_tells_where_it_fits() -> None:
    told = Traits(kinds={"output": "classes"})
    assert kinds((5,), told) == "classes"
    assert kinds((4, 6, 6), Traits(kinds={"output": "segmentation"})) == "segmentation"
    assert kinds((4, 6, 6), told) == "dense", "of another shape"
    assert kinds((5,), Traits(kinds={"output": "regression"})) == "regression"
    assert kinds((5,), Traits(kinds={"output": "what nobody knows"})) == "embedding"


def test_what_nothing_told_is_known_as_such() -> None:
    vectors = np.zeros((3, 5), np.float32)
    assert nothing_told("x", vectors, Traits())
    for traits in (
        Traits(classes=0),
        Traits(classes=9),
        Traits(problem="regression"),
        Traits(kinds={"x": "embedding"}),
    ):
        assert not nothing_told("x", vectors, traits)
    assert not nothing_told("logits", vectors, Traits())
    assert not nothing_told("x", vectors, Traits(), np.zeros(3, np.int64))
    assert not nothing_told("x", vectors[:, None], Traits())


def test_a_name_tells_and_integers_are_choices() -> None:
    assert kinds((5,), name="class.logits") == "classes"
    assert find_tasks({"x": np.zeros((3, 4), np.int64)}, Traits())["x"].kind == "choices"


def test_objects_and_maps_of_classes_are_told() -> None:
    assert kinds((5, 6), name="objects") == "detection"
    assert kinds((5, 6), name="tokens") == "dense"
    assert kinds((4, 6, 6), labels=np.zeros((3, 6, 6), np.int64)) == "segmentation"
    assert kinds((4, 6, 6), labels=np.zeros((3, 6, 6), np.float32)) == "dense"


def test_what_is_asked_for_is_done() -> None:
    outputs = {"a": np.zeros((3, 4), np.float32), "b": np.zeros((3, 2), np.float32)}
    found = find_tasks(outputs, Traits(4), parse_tasks(["regression", "b=multilabel"]))
    assert {name: task.kind for name, task in found.items()} == {"a": "regression", "b": "multilabel"}


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ("clases", "task 'clases': expected one of classes, embedding"),
        ({"x": "classes"}, "task for output 'x': the model returns output"),
        ("dense", r"task 'dense' for output, of shape \(N, 4\): expected \(N, tokens, size\)"),
        ("output=", "task '': expected one of"),
    ],
)
def test_what_cannot_be_is_refused(asked: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        find_tasks({"output": np.zeros((3, 4), np.float32)}, Traits(), parse_tasks(asked))


@pytest.mark.parametrize("asked", ["regression", "b=classes", "a=b=dense"])
def test_what_was_asked_is_written_as_it_is_read(asked: str) -> None:
    ((name, kind),) = parse_tasks([asked]).items()
    assert task_text(name, kind) == asked
