"""A shipped model, quantized and exported, and the same file with one wrong number."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor

from fimaq_deploy.calibration.quantization import quantize
from fimaq_deploy.export import export_onnx
from fimaq_deploy.models.load import load_model
from fimaq_deploy.recipe import Recipe


@pytest.fixture(scope="session")
def images() -> Tensor:
    return torch.rand(8, 1, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory, images: Tensor) -> tuple[Path, Any]:
    """quantized.safetensors and model.onnx of a shipped model, and the model itself."""
    recipe = Recipe.load("w8a8").replace(reconstruction={"iterations": 0}, scale_search={"candidates": 8})
    model = quantize(load_model("vit_digits"), images, recipe, "tensorrt-rtx")
    made = tmp_path_factory.mktemp("parity")
    model.save(made / "quantized.safetensors")
    export_onnx(model, made / "model.onnx")
    return made, model


@pytest.fixture(scope="session")
def changed() -> Callable[..., Path]:
    """`changed(folder, out, name, change)`: model.onnx of a folder with one stored tensor changed, in another."""

    def write(folder: Path, out: Path, name: str, change: Callable[[np.ndarray], np.ndarray]) -> Path:
        model = onnx.load(folder / "model.onnx")
        tensor = next(tensor for tensor in model.graph.initializer if tensor.name == name)
        tensor.CopyFrom(onnx.numpy_helper.from_array(change(onnx.numpy_helper.to_array(tensor)), name))
        onnx.save(model, out / "model.onnx")
        return out / "model.onnx"

    return write
