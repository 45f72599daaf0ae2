"""Programs in other languages, beside our own runtime. npm installs what they need; without it they are skipped."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import fimaq_deploy as fd

EXAMPLE = Path(__file__).parent.parent / "examples" / "onnxruntime.mjs"


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if shutil.which("npm") is None:
        pytest.skip("npm is not installed")
    folder = tmp_path_factory.mktemp("node")
    (folder / "package.json").write_text('{"private": true}')
    environment = {**os.environ, "ONNXRUNTIME_NODE_INSTALL": "skip"}  # of CUDA's libraries, from elsewhere
    command = ["npm", "install", "--silent", "--no-audit", "--no-fund", "onnxruntime-node", "pngjs"]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)
    if done.returncode:
        pytest.skip(f"npm cannot install here: {done.stderr[-200:]}")
    shutil.copy(EXAMPLE, folder)
    return folder


@pytest.mark.slow
def test_javascript_answers_what_the_runtime_does(artifact: Path, packages: Path, tmp_path: Path) -> None:
    files = []
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 8, 3), np.uint8)
    for number, one in enumerate(pixels):
        files.append(tmp_path / f"{number}.png")
        Image.fromarray(one).save(files[-1])
    command = ["node", "onnxruntime.mjs", str(artifact), *map(str, files)]
    done = subprocess.run(command, cwd=packages, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    told = [json.loads(line) for line in done.stdout.splitlines()]
    classifier = fd.Classifier(artifact)
    for file, one in zip(files, told, strict=True):
        own = classifier.predict(file)
        assert one["label"] == own.label
        np.testing.assert_allclose(one["probability"], own.probability, atol=1e-5)


@pytest.mark.slow
def test_javascript_refuses_an_image_of_another_size(artifact: Path, packages: Path, tmp_path: Path) -> None:
    Image.new("RGB", (20, 16)).save(tmp_path / "wide.png")
    command = ["node", "onnxruntime.mjs", str(artifact), str(tmp_path / "wide.png")]
    done = subprocess.run(command, cwd=packages, capture_output=True, text=True, timeout=120)
    assert done.returncode and "has 16×20 pixels: resize it to 8×8" in done.stderr
