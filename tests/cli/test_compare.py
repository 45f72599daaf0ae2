"""The command on the build that is kept for CI. What it judges: tests/report/comparison."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from fixtures.commands import document, refused, run

from fimaq_deploy import UserError, compare
from fimaq_deploy.report.comparison.records import Judgement, Thresholds

BASELINE = Path(__file__).parents[2] / ".ci" / "baseline"
LIMITS = {"max_drop": 1.0, "max_growth": 10.0}
OPTIONS = ("--max-drop", 1, "--max-growth", 10)


def test_a_build_and_itself(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("compare", BASELINE, BASELINE, *OPTIONS) == 0
    printed = capsys.readouterr()
    assert printed.out.splitlines()[-1] == f"swin_digits: no regression against {BASELINE}."
    assert printed.err == ""


def test_the_command_and_the_function_tell_programs_the_same(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    judgement = compare(BASELINE, [BASELINE], **LIMITS)
    assert document(capsys, "compare", BASELINE, BASELINE, *OPTIONS) == judgement.document()
    assert run("compare", BASELINE, BASELINE, *OPTIONS, "--json", tmp_path / "found.json") == 0
    assert Judgement.model_validate_json((tmp_path / "found.json").read_text()) == judgement


def test_annotations_do_not_mix_with_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("compare", BASELINE, BASELINE, *OPTIONS, "--annotations", "--json", "-") == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out)["model"] == "swin_digits"
    assert printed.err.startswith("::notice title=fimaq-deploy compare::")


def test_thresholds_are_given_one_by_one_or_in_one_value() -> None:
    assert compare(BASELINE, BASELINE, **LIMITS) == compare(BASELINE, [str(BASELINE)], Thresholds(**LIMITS))


@pytest.mark.parametrize("value", [-1, float("nan"), float("inf"), "1", True])
@pytest.mark.parametrize("name", ["max_drop", "max_slowdown", "max_growth"])
def test_a_threshold_is_a_number_of_at_least_0(name: str, value: object) -> None:
    with pytest.raises(UserError, match=f"^--{name.replace('_', '-')} .*: expected a number of at least 0$"):
        compare(BASELINE, BASELINE, **{name: value})


def test_nothing_to_compare_with_is_one_line() -> None:
    with pytest.raises(UserError, match="nothing to compare with: name at least one build"):
        compare(BASELINE, [])


def test_bad_input_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert "name a report.json or the folder of a build" in refused(capsys, "compare", BASELINE, "none")
    assert "--max-drop -1.0: expected a number of at least 0" in refused(
        capsys, "compare", BASELINE, BASELINE, "--max-drop", -1
    )
