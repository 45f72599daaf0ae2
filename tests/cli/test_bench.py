from __future__ import annotations

import json
from pathlib import Path

import pytest
from fixtures.commands import document, refused, run

QUICK = ("--rounds", 3, "--threads", 1)


@pytest.fixture
def against(model_path: Path) -> Path:
    """The same file once more, as the yardstick."""
    path = model_path.with_name("other.onnx")
    path.write_bytes(model_path.read_bytes())
    return path


def test_a_table_a_batch_and_one_line_of_json_at_last(
    model_path: Path, against: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(model_path.parent)  # a long path takes the headings' room
    assert run("bench", model_path.name, "--against", against.name, "--batch", 2, *QUICK) == 0
    *table, last = capsys.readouterr().out.splitlines()
    assert "batch 2" in table[0] and "floor ms" in table[0] and any("×" in line for line in table)
    told = json.loads(last)
    assert told["schema"] == "fimaq-deploy/bench/1" and told["speedup_over"].startswith(against.name)
    assert told["rows"][1]["floor"]["milliseconds"] > 0


def test_json_alone_and_in_a_file(model_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ("bench", model_path, "--batch", 1, *QUICK)
    assert len(document(capsys, *arguments)["rows"]) == 1
    assert run(*arguments, "--json", tmp_path / "bench.json") == 0
    assert json.loads((tmp_path / "bench.json").read_text())["rows"][0]["target"] == "onnxruntime-cpu"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("none.onnx",), "no ONNX file none.onnx"),
        (("model.pt",), "neither a .onnx nor a .engine file"),
        (("{file}", "--target", "tensorflow"), "unknown target"),
        (("{file}", "--batch", "0"), "--batch 0: expected 1 to 4,096"),
        (
            ("{file}", "--threads", "0"),
            "option threads=0 of target onnxruntime-cpu: expected a whole",
        ),
        (("none.tensorrt-rtx.engine",), "none.tensorrt-rtx.engine"),
    ],
)
def test_bad_input_is_one_line(
    model_path: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], said: str
) -> None:
    assert said in refused(capsys, "bench", *(argument.format(file=model_path) for argument in arguments))
