from __future__ import annotations

import json
from collections.abc import Callable
from importlib.resources import files

import pytest
from jsonschema import Draft202012Validator
from jsonschema import ValidationError as SchemaError
from pydantic import ValidationError

from fimaq_deploy import report as r
from fimaq_deploy.pipeline.builds import BuildResult
from fimaq_deploy.report.schema import json_schema

SHIPPED = json.loads((files("fimaq_deploy.report") / "report.schema.json").read_text(encoding="utf-8"))
VALIDATOR = Draft202012Validator(SHIPPED)


def test_the_shipped_schema_is_that_of_the_model() -> None:
    """After a change: python -m fimaq_deploy.report > fimaq_deploy/report/report.schema.json"""
    Draft202012Validator.check_schema(SHIPPED)
    assert json_schema() == SHIPPED


def test_a_real_report_fits_the_schema(built: BuildResult) -> None:
    VALIDATOR.validate(json.loads((built.out / "report.json").read_text(encoding="utf-8")))


def test_a_full_report_fits_the_schema(full_report: r.Report) -> None:
    VALIDATOR.validate(json.loads(full_report.to_json()))


@pytest.mark.parametrize("change", [{"schema": "fimaq-deploy/report/9"}, {"extra": 1}, {"rows": {}}])
def test_the_schema_refuses_what_the_model_refuses(full_report: r.Report, change: dict[str, object]) -> None:
    with pytest.raises(SchemaError):
        VALIDATOR.validate({**json.loads(full_report.to_json()), **change})


def test_json_reads_back_as_itself_and_carries_its_schema(small_report: Callable[..., r.Report]) -> None:
    report = small_report()
    text = report.to_json()
    assert json.loads(text)["schema"] == "fimaq-deploy/report/1"
    assert r.Report.model_validate_json(text) == report


@pytest.mark.parametrize("change", [{"schema": "fimaq-deploy/report/9"}, {"extra": 1}, {"seed": "x"}])
def test_a_foreign_document_is_refused(small_report: Callable[..., r.Report], change: dict[str, object]) -> None:
    document = json.loads(small_report().to_json())
    with pytest.raises(ValidationError):
        r.Report.model_validate({**document, **change})
