from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from fimaq_deploy.errors import UserError
from fimaq_deploy.report.timeline.records import History, history

Save = Callable[..., Path]
GOOD, BAD = (97.5, 97.4, 97.6, 97.5, 97.45, 97.55), (95.0, 95.1, 94.9, 95.05)


@pytest.fixture
def saved(small_report: Callable[..., Any], tmp_path: Path) -> Save:
    """`saved(values)`: a folder with a build for each top-1."""

    def save(values: Sequence[float], sizes: Sequence[int] | None = None) -> Path:
        for number, top1 in enumerate(values):
            report = small_report(top1).model_copy(update={"created": f"2026-01-{number + 1:02}T00:00:00+00:00"})
            if sizes is not None:
                rows = [row.model_copy(update={"size_bytes": sizes[number]}) for row in report.rows]
                report = report.model_copy(update={"rows": rows})
            file = tmp_path / "builds" / f"{len(values) - number:02}" / "report.json"  # not in the order of names
            file.parent.mkdir(parents=True)
            file.write_text(report.to_json())
        return tmp_path / "builds"

    return save


def figure(found: History, kind: str) -> Any:
    (one,) = [one for one in found.series if one.figure.kind == kind]
    return one


def test_builds_stand_in_the_order_in_which_they_were_made(saved: Save) -> None:
    found = history(saved(GOOD))
    assert found.builds == 6 and found.worse == []
    assert [point.value for point in figure(found, "accuracy").points] == list(GOOD)
    assert {one.figure.kind for one in found.series} == {"accuracy", "speed-up", "size"}
    assert json.loads(json.dumps(found.document()))["schema"] == "fimaq-deploy/history/1"


def test_a_loss_that_stays_is_told_with_its_build(saved: Save) -> None:
    found = history(saved((*GOOD, *BAD)))
    (change,) = figure(found, "accuracy").changes
    assert (change.at, change.worse) == (6, True)
    (told,) = found.worse
    assert "97.50 became 95.01" in told and "2026-01-07" in told


def test_a_gain_and_a_loss_that_was_mended_are_not_for_the_worse(saved: Save) -> None:
    found = history(saved((*BAD, *BAD, *GOOD)))
    assert figure(found, "accuracy").changes[-1].worse is False and found.worse == []


def test_what_is_lost_on_other_images_or_labels_is_no_loss(saved: Save) -> None:
    """As `compare` refuses it; what does not depend on them still is one."""
    builds = saved((*GOOD, *BAD), sizes=[1_000_000] * 6 + [2_000_000] * 4)
    for number, file in enumerate(sorted(builds.rglob("report.json"), reverse=True)):
        document = json.loads(file.read_text())
        document["data"] |= {"images_sha256": "a" * 64, "labels_sha256": "b" * 64 if number < 6 else "c" * 64}
        file.write_text(json.dumps(document))
    found = history(builds)
    (change,) = figure(found, "accuracy").changes
    assert (change.at, change.moved, change.worse) == (6, True, False)
    assert figure(found, "accuracy").told(change).endswith(", evaluated on other images or labels than before")
    (told,) = found.worse
    assert "size in MB" in told


def test_one_bad_build_is_no_level_but_bytes_are_exact(saved: Save) -> None:
    found = history(saved((*GOOD, 95.0), sizes=[100] * 6 + [101]))
    assert figure(found, "accuracy").changes == ()
    assert [(change.at, change.worse) for change in figure(found, "size").changes] == [(6, True)]


def test_a_few_bytes_more_are_no_change(saved: Save) -> None:
    assert figure(history(saved(GOOD, sizes=[100_000] * 5 + [100_400])), "size").changes == ()


def test_a_change_that_nobody_cares_for_is_none(saved: Save) -> None:
    steady = [97.50, 97.501, 97.499, 97.50, 97.501, 97.45, 97.451, 97.449, 97.45]
    assert figure(history(saved(steady)), "accuracy").changes == ()


def test_what_holds_no_report_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no report\.json in"):
        history(tmp_path)
    (tmp_path / "report.json").write_text("{")
    with pytest.raises(UserError, match="is not JSON"):
        history([tmp_path])
