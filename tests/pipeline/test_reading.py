"""How images are read and what a model is made for, all the way through a build and back by its command."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fimaq_deploy.cli import main
from fimaq_deploy.errors import UserError
from fimaq_deploy.pipeline.request import Request

MODEL = """
from timm.models import VisionTransformer

def twelve():
    return VisionTransformer(
        img_size=16, patch_size=8, in_chans=12, num_classes=3, embed_dim=32, depth=1, num_heads=2, mlp_ratio=2
    )

def three():
    return VisionTransformer(
        img_size=16, patch_size=8, num_classes=3, embed_dim=32, depth=1, num_heads=2, mlp_ratio=2
    )
"""
QUICK = ["--target", "onnxruntime-cpu", "--set", "reconstruction.iterations=0", "--set", "reconstruction.images=8"]


def run(*words: str | Path) -> int:
    with pytest.raises(SystemExit) as ended:
        main([str(word) for word in words])
    return int(ended.value.code or 0)


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    name = f"reading_{abs(hash(tmp_path))}"
    (tmp_path / f"{name}.py").write_text(MODEL)
    monkeypatch.chdir(tmp_path)
    return name


def test_twelve_channels_from_files_of_arrays(models: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    np.save("calibration.npy", rng.random((8, 12, 16, 16), np.float32))
    np.savez("test.npz", images=rng.random((12, 12, 16, 16), np.float32), labels=np.arange(12) % 3)
    images = ("--images", "calibration.npy", "--eval-images", "test.npz")
    assert run("build", "--model", f"{models}:twelve", *images, "--out", "out", *QUICK) == 0
    report = json.loads(Path("out/report.json").read_text())
    assert report["data"]["evaluation"] == "file test.npz"
    assert report["data"]["labelled"]


def test_what_is_said_reaches_the_manifest_and_the_command(models: str) -> None:
    for k in (0, 1, 2, 10):
        Path(f"images/{k}").mkdir(parents=True)
        Image.new("RGB", (20, 20), (20 * k,) * 3).save(f"images/{k}/a.png")
    Path("map.txt").write_text("10\n2\n0\n")
    said = ("--mean", "0.5", "--std", "0.1,0.2,0.3", "--crop", "0.8", "--interpolation", "bilinear")
    images = ("--images", "images", "--eval-images", "images", "--class-map", "map.txt")
    assert run("build", "--model", f"{models}:three", *images, *said, "--out", "out", *QUICK) == 0
    manifest = json.loads(Path("out/manifest.json").read_text())
    assert manifest["preprocessing"]["std"] == [0.1, 0.2, 0.3]
    assert manifest["preprocessing"]["crop_pct"] == 0.8
    for words in ("--class-map map.txt", "--mean 0.5", "--std 0.1,0.2,0.3", "--crop 0.8", "--interpolation bilinear"):
        assert words in manifest["command"]
    notes = json.loads(Path("out/report.json").read_text())["data"]["notes"]
    assert "class folders left out, as the class map lacks them: 1 (first 1)" in notes


@pytest.mark.parametrize(
    ("option", "value", "reason"),
    [
        ("--mean", "x", "expected numbers"),
        ("--std", "0", "--std 0.0: expected"),
        ("--crop", "2", "--crop 2.0: expected"),
        ("--crop-mode", "x", "expected one of center"),
        ("--interpolation", "x", "expected one of nearest"),
        ("--image-size", "x", "--image-size x: expected a side"),
        ("--image-size", "32", "decides its own image size and channels"),
        ("--in-chans", "0", "--in-chans 0: expected"),
        ("--bit-depth", "99", "--bit-depth 99: expected"),
        ("--class-map", "absent.txt", "no class map absent.txt"),
    ],
)
def test_bad_values_are_one_line(
    models: str, option: str, value: str, reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("images/a").mkdir(parents=True)
    Image.new("RGB", (20, 20)).save("images/a/a.png")
    images = ("--images", "images", "--eval-images", "images")
    assert run("build", "--model", f"{models}:three", *images, option, value, "--out", "out", *QUICK) == 2
    assert reason in capsys.readouterr().err
    assert not Path("out").exists()


def test_sizes_are_part_of_what_a_build_resumes() -> None:
    plain, other = (Request.of("vit_t", weights="random", image_size=size, device="cpu") for size in (None, "32x48"))
    assert other.sizes.image_size == (32, 48)
    assert plain.as_dict() != other.as_dict()
    assert "--image-size 32x48" in other.command()
    with pytest.raises(UserError, match="--in-chans"):
        Request.of("vit_t", in_chans=0)
