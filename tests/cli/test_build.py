from __future__ import annotations

import json
import resource
from pathlib import Path

import numpy as np
import pytest
import torch
from fixtures.commands import expect_error, run
from PIL import Image
from safetensors.torch import load_file, save_file

from fimaq_deploy.models.bundled import BUNDLED

ROOT = Path(__file__).parents[2]


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "swin_digit"], "unknown model 'swin_digit': did you mean swin_digits"),
        (["--model", "resnet50"], "is a ResNet: a convolutional network"),
        (["--model", "swin_digits", "--recipe", "w8a9"], "no recipe 'w8a9'"),
        (["--model", "swin_digits", "--set", "weights.bit=4"], "unknown field 'weights.bit'; did you mean"),
        (["--model", "swin_digits", "--set", "weights.bits=5"], "field 'weights.bits'"),
        (["--model", "swin_digits", "--target", "tensorflow"], "unknown target 'tensorflow'"),
        (["--model", "swin_digits", "--weights", "missing.safetensors"], "no checkpoint 'missing.safetensors'"),
        (["--model", "swin_digits", "--images", "missing"], "no images at missing: expected a folder"),
        (["--model", "swin_digits", "--device", "tpu"], "unknown device 'tpu'"),
        (["--model", "swin_digits", "--max-drop", "nan"], "--max-drop nan: expected a number"),
        (["--model", "swin_digits", "--max-drop", "-1"], "--max-drop -1.0: expected a number of at least 0"),
        (
            ["--model", "swin_digits", "--seed", "-1"],
            "--seed -1: expected a whole number from 0 to 92233720368547758",
        ),
        (["--model", "swin_digits", "--sensitivity", "-1"], "--sensitivity -1: expected a whole number from 0"),
        (["--model", "vit_t", "--weights", "random", "--max-drop", "1"], "--max-drop needs to know the classes"),
    ],
)
def test_a_mistake_is_one_line(
    arguments: list[str], message: str, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    expect_error(capsys, message, "build", *arguments, "--out", out)
    assert not out.exists()
    assert list(out.parent.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("corrupt.safetensors", b"nonsense", "is corrupt or not safetensors"),
        ("corrupt.pth", b"nonsense", "is corrupt or no torch file"),
        ("weights.txt", b"nonsense", "is corrupt or no torch file"),
    ],
)
def test_a_bad_checkpoint_is_one_line(
    name: str, content: bytes, message: str, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = out.parent / name
    path.write_bytes(content)
    expect_error(capsys, message, "build", "--model", "swin_digits", "--weights", path, "--out", out)


def test_a_checkpoint_of_another_architecture_is_one_line(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = BUNDLED["vit_digits"].weights
    expect_error(capsys, "of another architecture", "build", "--model", "swin_digits", "--weights", other, "--out", out)


def test_nan_weights_are_one_line(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    state = load_file(BUNDLED["swin_digits"].weights)
    state["head.fc.weight"][0, 0] = torch.nan
    path = out.parent / "nan.safetensors"
    save_file(state, path)
    expect_error(capsys, "NaN or infinite", "build", "--model", "swin_digits", "--weights", path, "--out", out)


def test_an_empty_image_folder_is_one_line(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = out.parent / "empty"
    folder.mkdir()
    expect_error(capsys, "no image in", "build", "--model", "swin_digits", "--images", folder, "--out", out)


def test_an_existing_out_is_one_line(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out.mkdir()
    (out / "notes.txt").write_text("mine")
    expect_error(capsys, "is not an earlier build", "build", "--model", "swin_digits", "--out", out, "--overwrite")
    assert (out / "notes.txt").read_text() == "mine"


def test_an_out_that_cannot_be_written_is_one_line(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out.write_text("")
    expect_error(capsys, "cannot write", "build", "--model", "swin_digits", "--out", out / "below")


def test_a_disk_that_fills_up_is_one_line(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, limits[1]))
    try:
        expect_error(
            capsys,
            "no space left",
            "build",
            *("--model", "swin_digits", "--set", "reconstruction.iterations=0", "--out", out),
            *("--target", "onnxruntime-cpu"),
        )
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not out.exists()


def image_folder(root: Path, per_class: int = 3) -> Path:
    """Random grey pictures of 16×16 in ten class folders."""
    rng = np.random.default_rng(0)
    for label in range(10):
        folder = root / str(label)
        folder.mkdir(parents=True)
        for number in range(per_class):
            Image.fromarray(rng.integers(0, 256, (16, 16), np.uint8)).save(folder / f"{number}.png")
    return root


def test_a_missed_gate_is_exit_code_1_and_keeps_the_artifacts(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    coarse = ("weights.bits=2", "reconstruction.iterations=0", "tuning.iterations=0")
    settings = [word for setting in coarse for word in ("--set", setting)]
    data = ("--model", "vit_digits", "--target", "onnxruntime-cpu", "--recipe", "w4a8")
    assert run("build", *data, *settings, "--out", out, "--max-drop", "1") == 1
    captured = capsys.readouterr()
    assert "failed: ONNX Runtime CPU loses" in captured.err
    assert "top-1" in captured.out
    assert (out / "report.json").is_file()


def test_folders_of_images_and_an_unreadable_one(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images = image_folder(out.parent / "images")
    (images / "0" / "broken.png").write_bytes(b"nonsense")
    code = run(
        "build",
        *("--model", "swin_digits", "--images", images, "--eval-images", images, "--out", out),
        *("--target", "onnxruntime-cpu", "--set", "reconstruction.iterations=0"),
        *("--json", out.parent / "found.json"),
    )
    assert code == 0
    found = json.loads((out.parent / "found.json").read_text(encoding="utf-8"))
    assert (found["schema"], found["out"], found["failures"]) == ("fimaq-deploy/build/1", str(out), [])
    assert found["report"] == json.loads((out / "report.json").read_text(encoding="utf-8"))
    assert "1 of 31 image files could not be used" in (out / "report.md").read_text()
    assert "PyTorch FP32" in capsys.readouterr().out


@pytest.mark.slow
def test_rewrites_by_trials_are_told_and_made_again_without_any(out: Path) -> None:
    few = ["reconstruction.iterations=1", "reconstruction.images=8", "tuning.iterations=0", "scale_search.candidates=2"]
    common = ["build", "--model", "vit_digits", "--target", "onnxruntime-cpu", "--replay", "0"]
    settings = [word for one in (*few, "rewrites=auto") for word in ("--set", one)]
    assert run(*common, *settings, "--out", out) == 0
    report, text = json.loads((out / "report.json").read_text()), (out / "recipe.yaml").read_text()
    taken = [trial["setting"] for trial in report["rewrites"]["trials"] if trial["taken"]]
    assert report["rewrites"]["images"] == 8 and len(report["rewrites"]["trials"]) >= 5
    assert text.startswith("# rewrites: auto, loss ") and all(f"# {setting}" in text for setting in taken)
    assert report["recipe"]["rewrites"]["values"] is ("rewrites.values=true" in taken)
    assert "Rewrites" in (out / "report.md").read_text()

    again = out.with_name("again")
    assert run(*common, "--recipe", out / "recipe.yaml", "--out", again) == 0
    assert json.loads((again / "report.json").read_text())["rewrites"] is None
    assert (again / "model.onnx").read_bytes() == (out / "model.onnx").read_bytes()
