from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import timm
from torch import nn

from fimaq_deploy.errors import UserError
from fimaq_deploy.measure.tasks import Traits, find_tasks, parse_tasks, traits_of


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


def test_a_name_tells_and_integers_are_choices() -> None:
    assert kinds((5,), name="class.logits") == "classes"
    assert find_tasks({"x": np.zeros((3, 4), np.int64)}, Traits())["x"].kind == "choices"


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


class Wrapper(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner


@pytest.mark.parametrize("wrap", [lambda model: model, Wrapper], ids=["bare", "wrapped"])
@pytest.mark.parametrize("classes", [0, 7])
def test_timm_models_say_what_they_are(wrap: Any, classes: int) -> None:
    model = timm.create_model("vit_tiny_patch16_224", num_classes=classes, img_size=32, depth=1)
    assert traits_of(wrap(model)) == Traits(classes, 192)


def test_a_linear_head_says_how_wide_it_is() -> None:
    model = Wrapper(nn.Linear(4, 4))
    assert traits_of(model) == Traits()
    model.head = nn.Linear(4, 3)  # type: ignore[assignment]
    assert traits_of(model) == Traits(classes=3)
    assert traits_of(lambda images: images) == Traits()


def test_hugging_face_models_say_what_they_are() -> None:
    transformers = pytest.importorskip("transformers")
    size = {"image_size": 32, "hidden_size": 12, "num_hidden_layers": 1, "num_attention_heads": 1}
    config = transformers.ViTConfig(
        **size, intermediate_size=8, num_labels=5, problem_type="multi_label_classification"
    )
    assert traits_of(transformers.ViTForImageClassification(config)) == Traits(5, 12, "multilabel")
    assert traits_of(transformers.ViTModel(config)) == Traits(None, 12, "multilabel")
