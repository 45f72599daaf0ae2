from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx

from fimaq_deploy.verify.stored_weights import differing_weights


def test_weights_are_compared_exactly(exported: Callable[[str], Any], tmp_path: Path) -> None:
    _, path = exported("w8a8")
    model = onnx.load(path)
    changed = next(tensor for tensor in model.graph.initializer if tensor.name == "parts.1.qkv.q")
    changed.raw_data = bytes([changed.raw_data[0] ^ 1]) + changed.raw_data[1:]
    onnx.save(model, tmp_path / "changed.onnx")
    assert differing_weights(path, path) == []
    assert differing_weights(path, tmp_path / "changed.onnx") == ["parts.1.qkv.q"]


def test_a_model_on_disk_has_the_weights_of_its_file(folder: tuple[Path, Any]) -> None:
    made, _ = folder
    assert differing_weights(made / "quantized.safetensors", made / "model.onnx") == []
