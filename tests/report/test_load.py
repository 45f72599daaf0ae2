from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fimaq_deploy import UserError
from fimaq_deploy.pipeline.builds import BuildResult
from fimaq_deploy.report import Report, load_report

FIRST_FIELDS = ("schema", "created", "command", "seed", "model", "recipe", "data", "environment", "targets", "rows")
FIRST_FIELDS += ("blocks", "steps")


@pytest.fixture
def document(full_report: Report) -> dict[str, Any]:
    return json.loads(full_report.to_json())


def saved(folder: Path, content: object) -> Path:
    path = folder / "report.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


def test_a_build_is_read_from_its_folder_or_its_file(built: BuildResult) -> None:
    assert load_report(built.out) == load_report(built.out / "report.json") == built.report


def test_a_full_report_reads_back(full_report: Report, tmp_path: Path) -> None:
    assert load_report(saved(tmp_path, full_report.to_json())) == full_report


def test_a_report_of_the_first_release_is_readable(document: dict[str, Any], tmp_path: Path) -> None:
    old = {name: document[name] for name in FIRST_FIELDS}
    for block in old["blocks"]:
        del block["curve"]
    for row in old["rows"]:
        del row["peak_memory_bytes"]
        for latency in row["latency"]:
            del latency["floor_ms"], latency["speedup_interval"]
    report = load_report(saved(tmp_path, old))
    assert report.grids == report.audits == report.blocks[0].curve == []
    assert report.rows[-2].accuracy is not None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema": "fimaq-deploy/report/2"}, "newer than fimaq-deploy/report/1 here: upgrade fimaq-deploy"),
        ({"schema": "fimaq-deploy/manifest/1"}, "is not a report of fimaq-deploy"),
        ({"schema": "fimaq-deploy/report/x"}, "is not a report of fimaq-deploy"),
        ({"schema": 1}, "is not a report of fimaq-deploy"),
        ({"mystery": 1}, "unknown field mystery; a newer fimaq-deploy wrote it: upgrade to read it"),
        ({"seed": "x"}, "seed: input should be a valid integer"),
        ({"blocks": [{"name": "head"}]}, "blocks.0.loss_before: field required"),
    ],
)
def test_a_foreign_report_is_one_clear_line(
    document: dict[str, Any], change: dict[str, object], message: str, tmp_path: Path
) -> None:
    path = saved(tmp_path, {**document, **change})
    with pytest.raises(UserError) as error:
        load_report(path)
    assert message in str(error.value)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"size_bytes": -5}, "size_bytes: input should be greater than or equal to 0"),
        ({"size_bytes": 10**400}, "size_bytes: input should be less than or equal to"),
        ({"latency": [{"speedup": 0.0}]}, "speedup: input should be greater than or equal to 0.000000001"),
        ({"latency": [{"speedup": -1.5}]}, "speedup: input should be greater than or equal to 0.000000001"),
        ({"latency": [{"p50_ms": float("inf")}]}, "p50_ms: input should be less than or equal to"),
        ({"latency": [{"batch_size": 0}]}, "batch_size: input should be greater than or equal to 1"),
    ],
)
def test_numbers_that_a_gate_would_pass_for_nothing_are_refused(
    document: dict[str, Any], row: dict[str, Any], message: str, tmp_path: Path
) -> None:
    given = next(one for one in document["rows"] if one["latency"] and one["size_bytes"])
    if "latency" in row:
        row = {"latency": [{**given["latency"][0], **row["latency"][0]}]}
    with pytest.raises(UserError, match=message):
        load_report(saved(tmp_path, {**document, "rows": [{**given, **row}]}))


@pytest.mark.parametrize("share", [0.0, 0.3, 0.99])
def test_a_report_that_is_cut_off_is_one_clear_line(full_report: Report, share: float, tmp_path: Path) -> None:
    text = full_report.to_json()
    with pytest.raises(UserError, match=r"is cut off or is not JSON .* build again"):
        load_report(saved(tmp_path, text[: int(share * len(text))]))


@pytest.mark.parametrize("content", ["[]", "null", "3", "{}"])
def test_other_json_is_not_a_report(content: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is not a report of fimaq-deploy"):
        load_report(saved(tmp_path, content))


def test_an_image_is_not_a_report(tmp_path: Path) -> None:
    (tmp_path / "cat.png").write_bytes(b"\x89PNG\r\n\xff\xfe")
    with pytest.raises(UserError, match="is not UTF-8 text"):
        load_report(tmp_path / "cat.png")


def test_what_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cannot read report .*: no such file.*; name a report\.json"):
        load_report(tmp_path)
