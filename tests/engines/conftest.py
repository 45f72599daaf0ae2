"""A small ONNX file made node by node: what the engines read needs no torch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

STEP = np.float16(0.05)
WEIGHT_STEP = np.float16(0.01)
WEIGHTS = np.random.default_rng(0).integers(-128, 128, (16, 16)).astype(np.int8)


def perceptron() -> onnx.ModelProto:
    """Images (N, 1, 4, 4) through an INT8 16×16 layer and ReLU to 16 logits, FP16 inside."""
    stored = {"s": STEP, "ws": WEIGHT_STEP, "z": np.int8(0), "w": WEIGHTS, "flat": np.array([-1, 16])}
    nodes = [
        helper.make_node("Cast", ["images"], ["half"], to=TensorProto.FLOAT16),
        helper.make_node("Reshape", ["half", "flat"], ["x"]),
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["xq"], name="quantize"),
        helper.make_node("DequantizeLinear", ["xq", "s", "z"], ["xd"]),
        helper.make_node("DequantizeLinear", ["w", "ws", "z"], ["wd"]),
        helper.make_node("MatMul", ["xd", "wd"], ["y"]),
        helper.make_node("Relu", ["y"], ["r"]),
        helper.make_node("Cast", ["r"], ["logits"], to=TensorProto.FLOAT),
    ]
    graph = helper.make_graph(
        nodes,
        "perceptron",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["N", 1, 4, 4])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 16])],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in stored.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


@pytest.fixture
def model_path(tmp_path: Path) -> Path:
    path = tmp_path / "model.onnx"
    onnx.save(perceptron(), path)
    return path


@pytest.fixture
def batch() -> NDArray[np.float32]:
    return np.random.default_rng(1).standard_normal((3, 1, 4, 4), dtype=np.float32)


@pytest.fixture
def expected(batch: NDArray[np.float32]) -> NDArray[np.float32]:
    """What `perceptron` computes, slow and obvious."""
    step = np.float32(STEP)
    x = np.clip(np.rint(batch.reshape(-1, 16) / step), -128, 127) * step
    return np.maximum(x @ (WEIGHTS * np.float32(WEIGHT_STEP)), 0).astype(np.float32)
