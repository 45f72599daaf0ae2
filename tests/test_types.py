"""A user's file under a strict type checker: what is right passes, and what is wrong is found before it runs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("mypy")
pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent
# A line marked `type: ignore` has to be an error of that kind: --strict refuses marks that nothing needs.
USER = """
from pathlib import Path

import torch

import fimaq_deploy as fd
from fimaq_deploy.recipe import Activations, Attention, Edge, Reconstruction, Rewrites, ScaleSearch, Tuning, Weights

recipe = fd.Recipe(
    weights=Weights(bits=4),
    activations=Activations(bits=8, scheme="symmetric"),
    head=Edge(quantize="never"),
    attention=Attention(softmax_bits=4),
    rewrites=Rewrites(norm=False),
    scale_search=ScaleSearch(images=64),
    reconstruction=Reconstruction(iterations=500, loss="mse"),
    tuning=Tuning(iterations=0),
)
Weights(bits=5)  # type: ignore[arg-type]
Weights(bit=4)  # type: ignore[call-arg]
Reconstruction(loss="dlpr")  # type: ignore[arg-type]

model = fd.load_model("swin_digits")
quantized = fd.quantize(model, torch.zeros(8, 1, 16, 16), recipe, target="onnxruntime-cpu")
path: Path = fd.export_onnx(quantized, "model.onnx")
fd.export_onnx(quantized)  # type: ignore[call-arg]


def top1(folder: str) -> float | None:
    result = fd.build("swin_digits", recipe=recipe, targets=["onnxruntime-cpu"], out=folder, seed=1)
    assert result is not None, "None in all processes of torchrun but the first"
    accuracy = result.report.deployed[0].accuracy
    return None if accuracy is None else accuracy.top1


fd.build("swin_digits", seed="one")  # type: ignore[arg-type]
fd.quantise  # type: ignore[attr-defined]
"""


def test_a_users_file_is_checked(tmp_path: Path) -> None:
    (tmp_path / "user.py").write_text(USER, encoding="utf-8")
    # As of an installed package, whose own errors are not the user's.
    command = [sys.executable, "-m", "mypy", "--strict", "--follow-imports=silent", "--config-file=", "user.py"]
    environment = {**os.environ, "MYPYPATH": str(ROOT)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
