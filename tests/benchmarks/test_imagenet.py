"""`benchmarks/imagenet.sh` end to end, on small random models and generated images that lie as ImageNet does."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "imagenet.sh"
SYNSETS = ("n01440764", "n01443537", "n01484850", "n01491361")
MODULE = """
import timm

CUT = dict(img_size=32, depth=2, embed_dim=48, num_heads=3, num_classes=1000)

def vit():
    return timm.create_model("vit_tiny_patch16_224", patch_size=8, **CUT)

def swin():
    return timm.create_model(
        "swin_tiny_patch4_window7_224", img_size=32, window_size=4, embed_dim=24, depths=(1, 1), num_heads=(2, 4)
    )
"""
LITTLE = ("images=16", "iterations=3", "batch_size=8", "rank=2", "fisher_images=16")
CELLS = [
    f"{model}-{kind}"
    for model in ("vit", "swin")
    for kind in ("fp32", "w4a4-papers", "w4a4-presets", "w3a3-papers", "w3a3-presets")
]


@pytest.fixture(scope="module")
def imagenet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("imagenet")
    (root / "small.py").write_text(MODULE)
    random = np.random.default_rng(0)
    for part, count in (("train", 5), ("val", 3)):
        for level, synset in enumerate(SYNSETS):
            folder = root / "ILSVRC" / part / synset
            folder.mkdir(parents=True)
            for number in range(count):
                pixels = np.clip(random.normal(60 + 40 * level, 30, (40, 48, 3)), 0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(folder / f"{synset}_{number}.JPEG")
    return root


def command(imagenet: Path, out: Path, *more: str) -> list[str]:
    settings = [word for field in LITTLE for word in ("--set", f"reconstruction.{field}")]
    settings += ["--set", "scale_search.images=16", "--set", "scale_search.candidates=8"]
    models = ["--models", "small:vit", "small:swin", "--device", "cpu", "--images", "16"]
    return [str(SCRIPT), str(imagenet / "ILSVRC"), "--out", str(out), *models, *settings, *more]


def environment(imagenet: Path) -> dict[str, str]:
    return {**os.environ, "PYTHON": sys.executable, "PYTHONPATH": str(imagenet), "OMP_NUM_THREADS": "1"}


def run(imagenet: Path, out: Path, *more: str) -> subprocess.CompletedProcess[str]:
    words = command(imagenet, out, *more)
    return subprocess.run(words, env=environment(imagenet), capture_output=True, text=True, timeout=500)


@pytest.mark.slow
def test_a_run_that_was_killed_goes_on_to_the_same_table(imagenet: Path, tmp_path: Path) -> None:
    whole = run(imagenet, tmp_path / "whole")
    assert whole.returncode == 0, whole.stderr
    found = json.loads((tmp_path / "whole" / "imagenet.json").read_text())
    assert list(found["cells"]) == CELLS and found["failed"] == []
    assert all(0 <= cell["top1"] <= 100 and cell["evaluation_images"] == 12 for cell in found["cells"].values())
    bits = {
        name: cell["recipe"]["attention"]["softmax_bits"] for name, cell in found["cells"].items() if cell["recipe"]
    }
    assert (bits["vit-w3a3-papers"], bits["vit-w4a4-papers"]) == (3, 4) and bits["vit-w3a3-presets"] != 3

    out = tmp_path / "killed"
    process = subprocess.Popen(command(imagenet, out), env=environment(imagenet), start_new_session=True)
    until = time.monotonic() + 300
    while not (out / "cells" / "vit-w4a4-papers.json").exists():
        assert time.monotonic() < until and process.poll() is None
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    first = (out / "cells" / "vit-fp32.json").stat().st_mtime_ns
    again = run(imagenet, out)
    assert (again.returncode, again.stdout) == (0, whole.stdout)
    assert (out / "cells" / "vit-fp32.json").stat().st_mtime_ns == first, "what was there is kept"
    assert "vit-fp32" not in again.stderr and "swin-w3a3-presets" in again.stderr
    assert (out / "table.md").read_text() == whole.stdout
    assert {file.suffix for file in (out / "cells").iterdir()} == {".json"}
    other = run(imagenet, out, "--seed", "1", "--bits", "4", "--settings", "presets", "--models", "small:vit")
    assert len(re.findall(r"^\d/2 vit-", other.stderr, re.M)) == 2, "another question is asked anew"


def test_a_folder_of_another_kind_is_one_line(imagenet: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [str(SCRIPT), str(tmp_path)], env=environment(imagenet), capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 2
    assert done.stderr == f"error: {tmp_path}: expected train/ with a folder for each class, such as train/n01440764\n"


def test_published_figures_stand_beside_their_models() -> None:
    code = "import imagenet as i, argparse; n = argparse.Namespace(models=i.MODELS, bits=(4, 3), settings=i.SETTINGS)"
    done = subprocess.run(
        [sys.executable, "-c", f"{code}; print(i.table(n, {{'deit_s-w3a3-presets': {{'top1': 70.123}}}}))"],
        env={**os.environ, "PYTHONPATH": f"{SCRIPT.parent}{os.pathsep}{SCRIPT.parents[1]}"},
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    header, _, *rows = done.stdout.splitlines()
    (row,) = (line for line in rows if line.startswith("| deit_s "))
    told = dict(zip(header.strip("| ").split(" | "), row.strip("| ").split(" | "), strict=True))
    assert (told["FP32"], told["FP32 published"], told["W4A4 FIMA-Q"], told["W3A3 FIMA-Q"]) == (
        "–",
        "79.85",
        "76.87",
        "69.13",
    )
    assert (told["W3A3 presets"], told["W3A3 papers"], told["W3A3 GLF-Q"]) == ("70.12", "–", "71.55")
