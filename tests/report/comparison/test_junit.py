from __future__ import annotations

from xml.etree import ElementTree

import pytest

from fimaq_deploy.report.comparison.junit import to_junit
from fimaq_deploy.report.comparison.records import Comparison, Difference, Judgement, Thresholds


def difference(**changes: object) -> Difference:
    fields = {"row": "cpu", "title": "ONNX <CPU>", "figure": "top1", "new": 90.0, "baseline": 95.0, "loss": 5.0}
    return Difference.model_validate({**fields, "limit": 1.0, "verdict": "regression", **changes})


@pytest.fixture
def judgement() -> Judgement:
    passed = difference(figure="size", new=7, baseline=7, loss=0, verdict="same")
    shown = difference(figure="latency", batch_size=8, new=1.2, baseline=1.3, loss=8, limit=None, verdict="not judged")
    first = Comparison(
        baseline="old",
        differences=[difference(), passed, shown],
        agreement={},
        regressions=[
            "ONNX <CPU>: top-1 -5.00 points, against old; a loss of 1 point is allowed",
            "tensorrt compiles old and not new: no & kernel",
        ],
        doubts=[],
        obstacles=["--max-slowdown cannot be judged: other hardware"],
        notes=[],
        changes=[],
    )
    second = first.model_copy(update={"baseline": "older\x00", "differences": [passed], "regressions": []})
    limits = Thresholds(max_drop=1, max_slowdown=20, max_growth=1)
    return Judgement(new="new", created="", model="vit", thresholds=limits, comparisons=[first, second])


def outcomes(suite: ElementTree.Element) -> dict[str, list[str]]:
    """The outcome of each case by its name; a passed one has none."""
    return {
        str(case.get("name")): [part.tag for part in case if part.tag != "system-out"]
        for case in suite.iter("testcase")
    }


def test_each_figure_is_a_test_with_its_outcome(judgement: Judgement) -> None:
    first, second = ElementTree.fromstring(to_junit(judgement))
    assert outcomes(first) == {
        "top-1": ["failure"],
        "size": [],
        "time, batch 8": ["skipped"],
        "compiler": ["failure"],
        "--max-slowdown": ["error"],
    }
    assert outcomes(second) == {"size": [], "--max-slowdown": ["error"]}


def test_the_counts_are_those_of_the_cases(judgement: Judgement) -> None:
    root = ElementTree.fromstring(to_junit(judgement))
    first, second = root
    for suite in (first, second):
        assert suite.get("tests") == str(len(suite.findall("testcase")))
        for level, tag in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
            assert suite.get(level) == str(len(suite.findall(f"*/{tag}")))
    assert (first.get("tests"), first.get("failures"), first.get("errors")) == ("5", "2", "1")
    assert (root.get("tests"), root.get("failures"), root.get("errors")) == ("7", "2", "2")


def test_a_failure_is_told_in_the_words_of_the_judgement(judgement: Judgement) -> None:
    failures = [found.get("message") for found in ElementTree.fromstring(to_junit(judgement)).iter("failure")]
    assert failures == judgement.regressions


def test_signs_that_xml_cannot_hold_are_replaced(judgement: Judgement) -> None:
    _, second = ElementTree.fromstring(to_junit(judgement))
    assert second.get("name") == "vit against older\ufffd"


def test_a_doubt_passes(judgement: Judgement) -> None:
    """As the exit code does: chance may explain it."""
    doubtful = judgement.comparisons[0].model_copy(
        update={"differences": [difference(verdict="doubtful")], "regressions": [], "obstacles": []}
    )
    (suite,) = ElementTree.fromstring(to_junit(judgement.model_copy(update={"comparisons": [doubtful]})))
    assert outcomes(suite) == {"top-1": []}
