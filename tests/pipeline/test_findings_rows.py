"""Rows and outputs of a report from real passes: what belongs to which comparison, and what only classes have."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from fixtures.evaluations import LABELS, ORIGINAL, OWN, TASKS, passed
from fixtures.objects import found_objects, packed, true_objects

from fimaq_deploy.measure.tasks import Tasks
from fimaq_deploy.measure.tasks.classes import CLASSES
from fimaq_deploy.measure.tasks.detection import DETECTION
from fimaq_deploy.measure.tasks.regression import REGRESSION
from fimaq_deploy.pipeline.findings import to_outputs, to_row
from fimaq_deploy.pipeline.rows import Candidate, Done, to_predictions
from fimaq_deploy.report.predictions import Key


def candidate(name: str = "engine", **more: Any) -> Candidate:
    return Candidate(name, name.title(), lambda images: images, **more)


def test_a_row_that_ran_holds_everything_that_was_measured() -> None:
    done = Done(passed(OWN, ORIGINAL, LABELS), passed(OWN, OWN))
    row = to_row(candidate(compared_to="onnx", deployed=True), "pytorch", done, {"recall": 0.5})
    assert (row.id, row.title, row.deployed, row.not_run, row.not_finite) == ("engine", "Engine", True, None, 0)
    assert row.accuracy is not None
    assert (row.accuracy.images, row.accuracy.top1) == (12, 75.0)
    assert row.original is not None
    assert (row.original.to, row.original.agreement, row.original.largest_difference) == ("pytorch", 75.0, 9.0)
    assert row.comparison is not None
    assert (row.comparison.to, row.comparison.agreement, row.comparison.largest_difference) == ("onnx", 100.0, 0.0)
    assert {one.name for one in row.labelled} == {"top1", "top5"}
    assert [(one.output, one.name, one.value) for one in row.own] == [("", "recall", 0.5)]


def test_figures_against_the_original_are_not_those_against_labels() -> None:
    row = to_row(candidate(), "pytorch", Done(passed(OWN, ORIGINAL, LABELS), passed(OWN)), {})
    assert row.original is not None
    assert {one.name for one in row.original.figures} == {"agreement", "kappa", "kl", "cosine"}
    assert row.comparison is None, "it has no neighbour"


def test_a_row_that_did_not_run_says_why_and_how_large_its_file_is(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(bytes(123))
    row = to_row(candidate(file=tmp_path / "model.onnx", not_run="no GPU"), "pytorch", None, {})
    assert (row.not_run, row.file, row.size_bytes) == ("no GPU", "model.onnx", 123)
    assert (row.accuracy, row.original, row.comparison, row.labelled) == (None, None, None, [])
    missing = to_row(candidate(file=tmp_path / "other.onnx"), "pytorch", None, {})
    assert (missing.file, missing.size_bytes) == ("other.onnx", None)


def test_what_was_lost_has_an_interval_from_the_same_images() -> None:
    first = Done(passed(ORIGINAL, None, LABELS), passed(ORIGINAL))
    row = to_row(candidate(), "pytorch", Done(passed(OWN, ORIGINAL, LABELS), passed(OWN)), {}, first)
    told = {one.name: one.loss_interval for one in row.labelled}
    low, high = told["top1"] or (0.0, 0.0)
    assert 0 <= low < 25 < high < 60, "three of twelve images are lost"
    assert told["top5"] is None, "no threshold is about it"
    own = to_row(candidate("pytorch"), "pytorch", first, {}, first)
    assert {one.loss_interval for one in own.labelled} == {None}


def test_of_resampled_figures_the_same_resamples_are_compared() -> None:
    truth = true_objects(8)
    right, found = packed(truth), packed(found_objects(truth))
    tasks: Tasks = {"objects": DETECTION}
    first = Done(passed(right, None, right, tasks), passed(right, tasks=tasks))
    row = to_row(candidate(), "pytorch", Done(passed(found, None, right, tasks), passed(found, tasks=tasks)), {}, first)
    for one in row.labelled:
        assert one.loss_interval is not None and one.value is not None
        assert one.loss_interval[0] <= 100 - one.value <= one.loss_interval[1]
    assert [one.name for one in row.labelled] == ["ap", "ap50", "mask_ap", "mask_ap50"]
    assert to_predictions("", "", {"engine": passed(found, None, right, tasks)}).resamples.keys() == {
        Key("engine", "objects", name) for name in ("ap", "ap50", "mask_ap", "mask_ap50")
    }


def test_numbers_have_neither_accuracy_nor_agreement() -> None:
    tasks: Tasks = {"angle": REGRESSION}
    found = passed(OWN, ORIGINAL, ORIGINAL + 1, tasks)
    row = to_row(candidate(), "pytorch", Done(found, found), {})
    assert row.accuracy is None
    assert row.original is not None
    assert row.original.agreement is None
    assert [(one.output, one.name) for one in row.labelled] == [("angle", "mae")]


def test_images_whose_output_is_not_finite_are_counted() -> None:
    own = OWN.copy()
    own[5:7, 0] = np.nan
    found = passed(own, ORIGINAL, LABELS)
    row = to_row(candidate(), "pytorch", Done(found, found), {})
    assert row.accuracy is not None
    assert (row.not_finite, row.accuracy.not_finite) == (2, 2)
    assert row.original is not None
    assert row.original.largest_difference is None


def test_outputs_tell_of_the_figures_that_some_row_has() -> None:
    evaluations = [passed(ORIGINAL), passed(OWN, ORIGINAL)]
    (output,) = to_outputs(TASKS, {"logits": (7,)}, evaluations)
    assert (output.name, output.task, output.shape) == ("logits", "classes", [7])
    assert [one.name for one in output.figures] == ["agreement", "kappa", "kl", "cosine"]
    (labelled,) = to_outputs(TASKS, {"logits": (7,)}, [passed(ORIGINAL, None, LABELS)])
    assert [one.name for one in labelled.figures] == ["top1", "top5"]
    found, told = output.figures[0], CLASSES.figure("agreement")
    assert (found.title, found.unit, found.gate, found.headline) == (told.title, "%", "agreement", True)
