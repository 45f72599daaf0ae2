"""A few images decide what will be measured: kinds, thresholds with a meaning, and the user's own function."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fimaq_deploy.data.intake import as_source
from fimaq_deploy.errors import UserError
from fimaq_deploy.pipeline.measures import Measures, choose_measures, load_function
from fimaq_deploy.pipeline.request import Request

IMAGES = np.random.default_rng(0).normal(size=(70, 3, 2, 2)).astype(np.float32)
CLASSES = list(range(3)) * 24


def channels(images: Any) -> Any:
    """A score for each channel."""
    return images.mean((2, 3))


def chosen(original: Any = channels, labels: Any = None, **asked: Any) -> Measures:
    request = Request.of("vit_digits", targets="onnxruntime-cpu", device="cpu", **asked)
    return choose_measures(request, original, as_source(IMAGES, labels=labels))


def test_a_first_look_tells_the_kind_of_each_output() -> None:
    assert {name: task.kind for name, task in chosen().tasks.items()} == {"output": "embedding"}
    assert chosen(labels=CLASSES[:70]).tasks["output"].kind == "classes"
    found = chosen(lambda images: {"logits": channels(images), "map": images})
    assert {name: task.kind for name, task in found.tasks.items()} == {"logits": "classes", "map": "dense"}


def test_vectors_that_may_be_classes_are_told() -> None:
    (note,) = chosen().notes
    assert note == (
        "nothing says that the 3 numbers of output output are classes, so they are compared as vectors: give --task "
        "classes if they are, for agreement and accuracy"
    )
    assert not chosen(task="embedding").notes and not chosen(task="classes").notes
    assert not chosen(labels=CLASSES[:70]).notes
    assert not chosen(lambda images: {"logits": channels(images), "map": images}).notes


def test_what_is_asked_for_is_measured() -> None:
    assert chosen(task="regression").tasks["output"].kind == "regression"
    with pytest.raises(UserError, match="task 'dense' for output"):
        chosen(task="dense")


def test_the_look_is_at_one_batch() -> None:
    seen: list[int] = []
    chosen(lambda images: seen.append(len(images)) or channels(images))
    assert seen == [32]


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        (
            {"task": "regression", "min_agreement": 90},
            "--min-agreement: output is measured as regression, which has none; use --min-cosine",
        ),
        (
            {"task": "choices", "min_cosine": 0.9},
            "--min-cosine: output is measured as choices, which has none; use --min-agreement",
        ),
        (
            {"task": "classes", "max_drop": 1},
            "--max-drop needs to know the classes: give a folder with one sub-folder each as --eval-images, "
            "or a figure of your own as --evaluate",
        ),
        (
            {"task": "regression", "max_drop": 1},
            "--max-drop needs to know what is right (output is measured as regression): give a file of images and "
            "fitting labels as --eval-images, or a figure of your own as --evaluate",
        ),
    ],
)
def test_a_threshold_that_nothing_is_held_to_is_refused(asked: dict[str, Any], told: str) -> None:
    with pytest.raises(UserError) as refused:
        chosen(**asked)
    assert str(refused.value) == told


def test_labels_that_do_not_fit_the_output_tell_no_drop() -> None:
    with pytest.raises(UserError, match=r"^--max-drop needs to know what is right"):
        chosen(labels=CLASSES[:70], task="regression", max_drop=1)


@pytest.mark.parametrize(
    "asked",
    [
        {"labels": CLASSES[:70], "max_drop": 1, "min_agreement": 90, "min_cosine": 0.9},
        {"labels": IMAGES.mean((2, 3)), "task": "regression", "max_drop": 1, "min_cosine": 0.9},
        {"max_drop": 1, "evaluate": lambda predict: 1.0},
    ],
    ids=["classes", "values", "own"],
)
def test_a_threshold_that_something_is_held_to_is_taken(asked: dict[str, Any]) -> None:
    chosen(**asked)


def test_the_users_function_is_tried_on_the_original() -> None:
    seen: list[Any] = []

    def recall(predict: Any) -> float:
        seen.append(predict(IMAGES[:5]))
        return 1.0

    assert chosen(evaluate=recall).own is recall
    np.testing.assert_allclose(seen[0], channels(IMAGES[:5]), rtol=1e-6)
    with pytest.raises(UserError, match=r"^<lambda> returned None: expected a number"):
        chosen(evaluate=lambda predict: None)


def test_a_function_is_found_by_its_name_beside_where_the_user_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "figures_of_mine.py").write_text("def recall(predict):\n    return 0.5\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    found = load_function("figures_of_mine:recall")
    assert found is not None
    assert found(channels) == 0.5
    with pytest.raises(UserError, match=r"^--evaluate 'figures_of_mine:recal': .*; did you mean 'recall'\?$"):
        load_function("figures_of_mine:recal")
    with pytest.raises(UserError, match=r"^--evaluate 'recall': expected package.module:function"):
        load_function("recall")
    assert load_function(None) is None
