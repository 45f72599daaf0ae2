"""Builds of large images stay in bounded memory: each runs in a process that may have 6 GB and no more."""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

LIMIT_BYTES = 6 * 10**9
FACTORY = """
import torch
from timm.models.vision_transformer import VisionTransformer

def make():
    torch.manual_seed(0)
    return VisionTransformer(img_size={side}, patch_size=16, embed_dim=96, depth=2, num_heads=3, num_classes=10).eval()
"""
SETTINGS = ("reconstruction.images=4", "reconstruction.iterations=2", "scale_search.images=4", "tuning.iterations=1")


def limited() -> None:
    """Nothing of the process's own may pass the limit: what is mapped to be written, resident or not."""
    resource.setrlimit(resource.RLIMIT_DATA, (LIMIT_BYTES, LIMIT_BYTES))


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not hold a process to it")
@pytest.mark.parametrize("side", [512, 1024])
def test_a_build_of_large_images_stays_below_six_gigabytes(side: int, tmp_path: Path) -> None:
    (tmp_path / "large.py").write_text(FACTORY.format(side=side))
    noise = np.random.default_rng(0).standard_normal((4, 3, side, side), dtype=np.float32)
    np.save(tmp_path / "images.npy", noise)
    asked = ["--model", "large:make", "--images", "images.npy", "--out", "built", "--target", "onnxruntime-cpu"]
    settings = [word for setting in SETTINGS for word in ("--set", setting)]
    done = subprocess.run(
        [sys.executable, "-m", "fimaq_deploy", "build", *asked, *settings],
        cwd=tmp_path,
        preexec_fn=limited,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "built" / "report.json").is_file()
    (told,) = [line for line in done.stderr.splitlines() if line.startswith("memory ")]
    peak = float(told.split()[2])
    assert peak < LIMIT_BYTES / 2**30 and f"({(side // 16) ** 2 + 1:,} tokens of width 96, 4 images, " in told
