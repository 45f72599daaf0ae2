"""What became of each target, in a line."""

from __future__ import annotations

import pytest

from fimaq_deploy import report as r
from fimaq_deploy.report.build_page.sections.targets import targets


@pytest.mark.parametrize(
    ("status", "built", "ran"),
    [
        ({}, "yes", "yes"),
        ({"compile_seconds": 4.25}, "in 4.2 s", "yes"),
        ({"compile_seconds": 0.0}, "in 0.0 s", "yes"),
        ({"not_run": "no driver"}, "yes", "no: no driver"),
        ({"not_built": "no package"}, "no: no package", "no: no package"),
        ({"not_built": "no kernel", "failed": True, "not_run": "no file"}, "no: no kernel", "no: no kernel"),
    ],
)
def test_a_target_is_built_and_run_or_says_why_not(
    full_report: r.Report, status: dict[str, object], built: str, ran: str
) -> None:
    target = r.TargetStatus.model_validate({"name": "tensorrt", **status})
    (exhibit,) = targets(full_report.model_copy(update={"targets": [target]})).exhibits
    assert exhibit.header == ("target", "built", "run")
    assert exhibit.rows == (("tensorrt", built, ran),)


def test_targets_keep_their_order(full_report: r.Report) -> None:
    (exhibit,) = targets(full_report).exhibits
    assert [row[0] for row in exhibit.rows] == ["tensorrt-rtx", "openvino-cpu"]


def test_a_build_for_no_target_has_nothing_to_show(full_report: r.Report) -> None:
    assert targets(full_report.model_copy(update={"targets": []})).exhibits == ()
