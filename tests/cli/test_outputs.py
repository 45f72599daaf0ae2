"""No command writes over a build or over what it reads."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from fimaq_deploy.cli import main
from fimaq_deploy.cli.outputs import check_outputs, refuse_to_replace
from fimaq_deploy.errors import UserError


@pytest.mark.parametrize(
    ("arguments", "harmed"),
    [
        (["history", ".", "--html", "report.json"], "report.json"),
        (["history", ".", "--json", "manifest.json"], "manifest.json"),
        (["compare", ".", ".", "--markdown", "model.onnx"], "model.onnx"),
        (["lint", "model.onnx", "--target", "onnxruntime-cpu", "--json", "../link"], "model.onnx"),
        (["predict", ".", "../photographs", "--json", "../photographs/0.png"], "../photographs/0.png"),
    ],
)
def test_a_file_of_a_build_or_of_the_command_is_not_replaced(
    artifact: Path,
    photographs: Callable[[int], list[Path]],
    arguments: list[str],
    harmed: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    photographs(1)
    (artifact.parent / "link").symlink_to(artifact / "model.onnx")
    monkeypatch.chdir(artifact)
    whole = Path(harmed).read_bytes()
    if arguments[0] == "predict":  # one file of a folder is named alone
        arguments = [*arguments[:2], harmed, *arguments[3:]]
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert "name another place" in capsys.readouterr().err
    assert Path(harmed).read_bytes() == whole


def test_beside_a_build_in_its_folder_and_on_standard_output_is_free(artifact: Path) -> None:
    for path in (artifact / "notes.json", artifact.parent / "report.json", "-", None):
        check_outputs({"json": path and str(path), "artifact": artifact, "files": [artifact / "model.onnx"]})


def test_a_manifest_that_cannot_be_read_promises_nothing(artifact: Path) -> None:
    (artifact / "manifest.json").write_text('{"fimaq-deploy"')
    refuse_to_replace(artifact / "model.onnx", "--json")
    with pytest.raises(UserError, match=r"^--json .*model\.onnx is read by the same command"):
        refuse_to_replace(artifact / "model.onnx", "--json", [artifact / "model.onnx"])
