from __future__ import annotations

import json
from pathlib import Path

import pytest
from fixtures.commands import document, refused, run

from fimaq_deploy import audit
from fimaq_deploy.verify.promises import EXPECTED

TARGET = ("--target", "tensorrt-rtx", "--sm", 89)


def test_a_file_beside_its_yardstick(model_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("tensorrt_rtx")
    found = audit(model_path, "tensorrt-rtx", compute_for=[(8, 9)], against=model_path)
    assert found.required == EXPECTED
    for spelling in ("--against", "--twin"):
        told = document(capsys, "audit", model_path, *TARGET, spelling, model_path)
        assert told == json.loads(json.dumps(found.document()))
    (block,) = told["audits"][0]["blocks"]
    assert block["kernels"] == block["twin_kernels"]
    assert run("audit", model_path, *TARGET, "--require", "int8-gemms=all,fused-attention") == 0
    assert "tensorrt-rtx, compute capability 8.9" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--target", "openvino-cpu"), "target openvino-cpu has no layer plan to audit: expected tensorrt or tensorrt"),
        (("--target", "tensorrt-rtx", "--require", "all"), "unknown promise 'all'"),
        (("--target", "tensorrt-rtx", "--require", "no-more-kernels"), "name its file as --against"),
    ],
)
def test_bad_input_is_one_line(
    model_path: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], said: str
) -> None:
    assert said in refused(capsys, "audit", model_path, *arguments)


@pytest.mark.parametrize("number", [5, -1, 90])
def test_a_generation_that_is_none_is_one_line(
    model_path: Path, capsys: pytest.CaptureFixture[str], number: int
) -> None:
    pytest.importorskip("tensorrt_rtx")
    line = refused(capsys, "audit", model_path, "--target", "tensorrt-rtx", "--sm", number)
    assert "compute capability" in line
