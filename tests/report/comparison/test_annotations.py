from __future__ import annotations

import re

import pytest

from fimaq_deploy.report.comparison.annotations import to_annotations
from fimaq_deploy.report.comparison.records import Comparison, Judgement, Thresholds

# What a runner that follows GitHub's workflow commands reads: https://docs.github.com/actions, "Workflow commands".
COMMAND = re.compile(r"::(error|warning|notice) title=([^:,\r\n]+)::([^\r\n]*)")


def judgement(**told: list[str]) -> Judgement:
    empty = {"regressions": [], "doubts": [], "obstacles": []}
    one = Comparison(baseline="old", differences=[], agreement={}, notes=[], changes=[], **{**empty, **told})
    return Judgement(new="new", created="", model="vit", thresholds=Thresholds(max_drop=1), comparisons=[one])


def read(line: str) -> tuple[str, str, str]:
    """Level, title and message as the runner decodes them."""
    found = COMMAND.fullmatch(line)
    assert found, line
    level, title, message = found.groups()
    for code, sign in (("%3A", ":"), ("%2C", ","), ("%0A", "\n"), ("%0D", "\r"), ("%25", "%")):
        title, message = title.replace(code, sign), message.replace(code, sign)
    return level, title, message


def test_each_finding_has_its_level_and_a_notice_ends() -> None:
    lines = to_annotations(judgement(regressions=["a loses"], obstacles=["b unknown"], doubts=["c maybe"]))
    assert [read(line) for line in lines] == [
        ("error", "vit: regression", "a loses"),
        ("error", "vit: not judged", "b unknown"),
        ("warning", "vit: perhaps chance", "c maybe"),
        ("notice", "fimaq-deploy compare", "vit: 1 regression against old."),
    ]


def test_a_pass_is_one_notice() -> None:
    assert [read(line)[0] for line in to_annotations(judgement())] == ["notice"]


@pytest.mark.parametrize("text", ["5 % slower", "two\nlines", "a: b, c", "100%25", "\r"])
def test_no_text_breaks_its_line(text: str) -> None:
    (line, _) = to_annotations(judgement(regressions=[text]))
    assert read(line)[2] == text
