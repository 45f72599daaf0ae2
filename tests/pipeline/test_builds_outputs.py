"""Builds of models that answer an object with several outputs: one is deployed, and it is what is compared."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fimaq_deploy import Recipe
from fimaq_deploy.pipeline.builds import build

pytest.importorskip("transformers")
QUICK = Recipe.load("w8a8").replace(reconstruction={"iterations": 2, "images": 16}, tuning={"iterations": 0})
FACTORY = """
import torch
import transformers as hf

SIZE = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
IMAGES = {"image_size": 16, "patch_size": 8}

def tower():
    torch.manual_seed(0)
    return hf.Dinov2Model(hf.Dinov2Config(**SIZE, **IMAGES))

def masked():
    torch.manual_seed(0)
    return hf.ViTMAEModel(hf.ViTMAEConfig(**SIZE, **IMAGES))
"""


@pytest.mark.parametrize(
    ("factory", "output", "shape"),
    [
        ("tower", "pooler_output", (32,)),
        pytest.param("masked", "last_hidden_state", (5, 32), marks=pytest.mark.slow),
    ],
)
def test_one_output_is_deployed_and_compared(
    factory: str, output: str, shape: tuple[int, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / f"objects_{factory}.py").write_text(FACTORY)
    monkeypatch.chdir(tmp_path)
    np.save("images.npy", np.random.default_rng(0).random((24, 16, 16, 3), np.float32))
    made = build(
        f"objects_{factory}:{factory}",
        images="images.npy",
        recipe=QUICK,
        targets=("onnxruntime-cpu",),
        out=tmp_path / "out",
    )
    assert made.failures == ()
    (found,) = made.report.outputs
    assert (found.name, tuple(found.shape)) == (output, shape)
    row = made.report.row("onnx-fp32")
    assert row is not None and row.original is not None and row.original.largest_difference is not None
    assert row.original.largest_difference < 1e-4
