"""Whether two builds can be compared, and what is not the same in both."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from fimaq_deploy import UserError
from fimaq_deploy.report.comparison.builds import Build
from fimaq_deploy.report.comparison.sameness import (
    changes,
    hardware_text,
    labels_unseen,
    require_comparable,
    same_hardware,
)
from fimaq_deploy.report.predictions import Predictions

Make = Callable[..., Build]


def expect_refusal(new: Build, old: Build, *words: str) -> None:
    with pytest.raises(UserError) as error:
        require_comparable(new, old)
    assert "\n" not in str(error.value)
    assert all(word in str(error.value) for word in words), str(error.value)


@pytest.mark.parametrize(
    "change", [{"name": "vit_s"}, {"classes": 10}, {"input_shape": (3, 384, 384)}, {"parameters": 1}]
)
def test_builds_of_different_models_are_refused(make: Make, change: dict[str, Any]) -> None:
    other = make().report.model.model_copy(update=change)
    expect_refusal(make("new", model=other), make(), "old is a build of deit_s", "name builds of one model")


def test_other_weights_of_one_model_are_compared_and_told(make: Make) -> None:
    other = make().report.model.model_copy(update={"weights": "mine.safetensors"})
    found = list(changes(make("new", model=other), make()))
    assert [(change.name, change.new) for change in found] == [("weights", "mine.safetensors")]


def test_builds_on_different_images_are_refused(make: Make) -> None:
    expect_refusal(
        make("new", images="another"), make(), "old was evaluated on other images", "build one of them again"
    )
    fewer = make().report.data.model_copy(update={"evaluation_images": 7})
    expect_refusal(make("new", kept=False, data=fewer), make(), "evaluated on other images (50000 from folder")


def test_other_labels_are_other_images(make: Make) -> None:
    old = make()
    assert old.predictions and old.predictions.labels is not None
    relabelled = Predictions(old.predictions.images, old.predictions.rows, (old.predictions.labels + 1) % 10)
    expect_refusal(make("new"), Build("old", old.report, relabelled), "other labels", "of the same images")


@pytest.mark.parametrize("kept", [True, False])
def test_other_annotations_or_maps_are_refused(make: Make, kept: bool) -> None:
    """Which no predictions hold: their fingerprints are in the reports."""
    data = make().report.data
    new, old, other, none = (
        make(name, kept=kept, data=data.model_copy(update={"images_sha256": "a" * 64, "labels_sha256": labels}))
        for name, labels in (("new", "b" * 64), ("old", "b" * 64), ("old", "c" * 64), ("old", ""))
    )
    require_comparable(new, old)
    expect_refusal(new, other, "old was evaluated with other labels (sha256 cccccccccccc) of the same images than new")
    expect_refusal(new, none, "other labels")
    if not kept:
        moved = make(kept=False, data=data.model_copy(update={"images_sha256": "d" * 64, "labels_sha256": "b" * 64}))
        expect_refusal(new, moved, "old was evaluated on other images")


def test_labels_that_nothing_compares_are_known_as_such(make: Make) -> None:
    """Of a build from before their fingerprints; classes that both kept are compared themselves."""
    known = make("new", data=make().report.data.model_copy(update={"labels_sha256": "b" * 64}))
    assert not labels_unseen(known, make())
    assert labels_unseen(known, make(kept=False))
    assert not labels_unseen(known, known)
    require_comparable(known, make(kept=False))


def test_what_else_changed_is_listed(make: Make) -> None:
    recipe = {"name": "w4a8", "weights": {"bits": 2}, "activations": {"bits": 8}}
    packages = {**make().report.environment.packages, "torch": "9.9"}
    environment = make().report.environment.model_copy(update={"packages": packages})
    found = changes(make("new", recipe=recipe, seed=4, environment=environment), make())
    assert {change.name: change.new for change in found} == {
        "recipe: weights.bits": "2",
        "seed": "4",
        "torch": "9.9",
    }


def test_equal_builds_are_comparable_and_nothing_changed(make: Make) -> None:
    require_comparable(make("new"), make())
    require_comparable(make("new", kept=False), make())
    assert list(changes(make("new"), make())) == []


@pytest.mark.parametrize(
    ("change", "same"),
    [
        ({"cpu": "x"}, False),
        ({"cores": 99}, False),
        ({"gpu": None}, False),
        ({"driver": "1"}, True),
        ({"python": "3.9"}, True),
    ],
)
def test_hardware_is_processor_cores_and_gpu(make: Make, change: dict[str, Any], same: bool) -> None:
    other = make("new", environment=make().report.environment.model_copy(update=change))
    assert same_hardware(other, make()) == same
    assert list(changes(other, make())), "whatever differs is listed"


def test_hardware_is_told_by_the_gpu_where_there_is_one(make: Make) -> None:
    machine = make().report.environment.model_copy(update={"cpu": "a CPU", "cores": 4})
    assert hardware_text(make(environment=machine)) == "NVIDIA L4, 4 cores"
    assert hardware_text(make(environment=machine.model_copy(update={"gpu": None}))) == "a CPU, 4 cores"


def test_what_only_one_build_has_is_none_in_the_other(make: Make) -> None:
    packages = {**make().report.environment.packages, "a-package": "1.0"}
    new = make("new", environment=make().report.environment.model_copy(update={"packages": packages}))
    (change,) = changes(new, make())
    assert (change.name, change.new, change.baseline) == ("a-package", "1.0", "none")
