"""Every command that reads a file of a build refuses one that is not what the build wrote."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from fimaq_deploy.calibration.quantized_model import load_quantized
from fimaq_deploy.cli import main
from fimaq_deploy.engines import load_engine
from fimaq_deploy.errors import UserError
from fimaq_deploy.manifest import write_manifest
from fimaq_deploy.models.load import load_model
from fimaq_deploy.packaging.packages import FORMATS

NAMES = (
    "model.onnx",
    "model.fp32.onnx",
    "model.tensorrt-rtx.onnx",
    "model.tensorrt-rtx.engine",
    "quantized.safetensors",
    "report.json",
)
WHOLE = ["manifest.json", "model.fp32.onnx", "model.onnx", "replay.npz", "report.json"]
FACTS = {
    "model": "swin_digits",
    "seed": 0,
    "targets": ["onnxruntime-cpu"],
    "command": "fimaq-deploy build --model swin_digits",
}
COMMANDS = [
    (["bench", "model.onnx"], "model.onnx"),
    (["bench", "model.onnx", "--target", "openvino-cpu"], "model.onnx"),
    (["bench", "elsewhere.onnx", "--against", "model.fp32.onnx"], "model.fp32.onnx"),
    (["bench", "model.tensorrt-rtx.engine"], "model.tensorrt-rtx.engine"),
    (["lint", "model.onnx", "--target", "onnxruntime-cpu"], "model.onnx"),
    (["lint", "model.tensorrt-rtx.onnx", "--target", "tensorrt-rtx"], "model.tensorrt-rtx.onnx"),
    (["audit", "model.tensorrt-rtx.onnx", "--target", "tensorrt-rtx"], "model.tensorrt-rtx.onnx"),
    (["parity", "."], "quantized.safetensors"),
    (["parity", "quantized.safetensors"], "quantized.safetensors"),
    (["compare", ".", "."], "report.json"),
    (["compare", "report.json", "report.json"], "report.json"),
]


@pytest.fixture
def built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the names of a build, and the current one."""
    for name in NAMES:
        (tmp_path / name).write_bytes(name.encode())
    write_manifest(tmp_path, FACTS)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def flip(path: Path, at: int = -1) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


def said(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    return capsys.readouterr().err


@pytest.mark.parametrize(("arguments", "name"), COMMANDS)
def test_a_command_refuses_a_flipped_bit(
    built: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], name: str
) -> None:
    assert "is not what its build wrote" not in said(capsys, *arguments), "that is no model at all, but intact"
    flip(built / name)
    assert f"{name} is not what its build wrote" in said(capsys, *arguments)


@pytest.mark.parametrize("name", ["model.onnx", "model.tensorrt-rtx.engine"])
def test_load_engine_refuses_a_flipped_bit(built: Path, name: str) -> None:
    flip(built / name)
    with pytest.raises(UserError, match="is not what its build wrote"):
        load_engine(name)


def test_load_quantized_refuses_a_flipped_bit(built: Path) -> None:
    flip(built / "quantized.safetensors")
    with pytest.raises(UserError, match="is not what its build wrote"):
        load_quantized("quantized.safetensors", load_model("swin_digits"))


# Of a whole build: what each command reads of it. A folder that is moved or packed is checked whole.
READERS = [
    (["predict", ".", "photographs"], ["manifest.json", "model.onnx"]),
    (["predict", "model.onnx", "photographs"], ["manifest.json", "model.onnx"]),
    (["serve", ".", "--port", "0"], ["manifest.json", "model.onnx"]),
    (["serve", ".", "--port", "0", "--original"], ["manifest.json", "model.fp32.onnx"]),
    (["history", "."], ["manifest.json", "report.json"]),
    (["compare", ".", "."], ["manifest.json", "report.json"]),
    (["verify", "."], WHOLE),
    *((["package", ".", "--format", form, "--out", "../packed"], WHOLE) for form in FORMATS),
]


@pytest.mark.parametrize(("arguments", "names"), READERS)
def test_what_is_deployed_is_refused_for_one_byte(
    artifact: Path,
    photographs: Callable[[int], list[Path]],
    arguments: list[str],
    names: list[str],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    photographs(1)[0].parent.rename(artifact / "photographs")
    monkeypatch.chdir(artifact)
    for name in names:
        whole = (artifact / name).read_bytes()
        flip(artifact / name, len(whole) // 2)
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        told = capsys.readouterr().err
        assert ended.value.code == (1 if arguments[0] == "verify" else 2), told
        assert f"{name} is not what its build wrote" in told or f"{name} cannot be read" in told
        (artifact / name).write_bytes(whole)
    assert not (artifact.parent / "packed").exists()
