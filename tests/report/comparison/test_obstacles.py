"""Thresholds that nothing could be held to, each with its reason."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fimaq_deploy import report as r
from fimaq_deploy.report.comparison.judge import Build, compare
from fimaq_deploy.report.comparison.obstacles import notes, obstacles
from fimaq_deploy.report.comparison.records import Judgement, Thresholds

CPU = "onnxruntime-cpu"
Make = Callable[..., Build]


def judged(new: Build, old: Build, **thresholds: float) -> Judgement:
    return compare(new, [old], Thresholds(**thresholds))


def without(build: Build, **changes: Any) -> Build:
    """With its row to ship changed."""
    row = build.report.rows[1].model_copy(update=changes)
    return Build(build.name, build.report.model_copy(update={"rows": [build.report.rows[0], row]}), build.predictions)


def test_a_baseline_that_shipped_nothing_judges_nothing(make: Make) -> None:
    old = make()
    report = old.report.model_copy(update={"rows": old.report.rows[:1]})
    found = judged(make("new"), Build("old", report, old.predictions), max_drop=1)
    assert found.obstacles == ["--max-drop cannot be judged: nothing to ship was run in old"]


def test_a_row_that_is_missing_now_cannot_be_judged(make: Make) -> None:
    new = make("new")
    report = new.report.model_copy(update={"rows": new.report.rows[:1]})
    found = judged(Build("new", report, new.predictions), make(), max_drop=1, max_growth=1)
    assert found.exit_code == 2
    assert found.obstacles == [
        f"--max-drop cannot be judged: {CPU} was run in old and not in new (it was not asked for)",
        f"--max-growth cannot be judged: {CPU} was run in old and not in new (it was not asked for)",
    ]


def test_no_labels_mean_that_accuracy_cannot_be_judged(make: Make) -> None:
    new, old = make("new"), make()
    bare = [row.model_copy(update={"accuracy": None}) for row in new.report.rows]
    found = judged(Build("new", new.report.model_copy(update={"rows": bare}), new.predictions), old, max_drop=1)
    assert found.exit_code == 2
    assert found.obstacles == [
        f"--max-drop cannot be judged: {CPU} has no accuracy in both; evaluate on images with classes"
    ]


def test_labels_that_an_older_build_did_not_keep_are_told(make: Make) -> None:
    known = make().report.data.model_copy(update={"labels_sha256": "b" * 64})
    told = "old: nothing kept tells whether labels are the same, as in builds from before 0.2.0"
    assert told in notes(make("new", data=known), make(kept=False))
    assert told not in notes(make("new", data=known), make(kept=False, data=known))


def test_what_was_not_asked_for_is_no_obstacle(make: Make) -> None:
    assert list(obstacles(make("new"), make(), Thresholds(), [])) == []


def test_each_threshold_says_what_is_missing(make: Make) -> None:
    limits = Thresholds(max_drop=1, max_slowdown=1, max_growth=1, min_agreement=90)
    bare = without(make("new"), accuracy=None, size_bytes=None)
    assert list(obstacles(bare, make(), limits, [])) == [
        f"--max-drop cannot be judged: {CPU} has no accuracy in both; evaluate on images with classes",
        f"--max-slowdown cannot be judged: {CPU} has no latency with its interval in both; build the older one again",
        f"--max-growth cannot be judged: {CPU} has no file in both",
    ]


def test_a_row_that_was_not_run_says_why(make: Make) -> None:
    new = without(make("new"), not_run="no driver")
    found = list(obstacles(new, make(), Thresholds(max_drop=1, min_agreement=90), []))
    assert found == [
        f"--max-drop cannot be judged: {CPU} was run in old and not in new (no driver)",
        "--min-agreement cannot be judged: nothing to ship was run in new",
    ]


def test_other_figures_are_named(make: Make) -> None:
    mine = [r.schema.Figure(name="f1", value=0.5)]
    new = without(make("new"), own=mine)
    (told,) = obstacles(new, make(), Thresholds(max_drop=1), [])
    assert told == f"--max-drop cannot be judged: {CPU} has f1 in new and top-1 in old"
    gone = [r.schema.Figure(name="f1", value=None)]
    (told,) = obstacles(without(make("new"), own=gone), without(make(), own=gone), Thresholds(max_drop=1), [])
    assert told == f"--max-drop cannot be judged: {CPU}: f1 is not finite in both"


def test_notes_say_what_makes_a_comparison_less_sharp(make: Make) -> None:
    assert list(notes(make("new"), make())) == []
    other = make().report.environment.model_copy(update={"cpu": "another"})
    assert list(notes(make("new", kept=False, environment=other), make(kept=False))) == [
        "old was measured on other hardware, so latency is shown and not judged",
        "new and old: nothing kept tells whether labels are the same, as in builds from before 0.2.0",
        "new and old: no predictions were kept, so accuracy is judged less sharply, unpaired",
    ]
    unlabelled = make().report.data.model_copy(update={"labelled": False})
    assert list(notes(make("new", kept=False, data=unlabelled), make(kept=False))) == []
