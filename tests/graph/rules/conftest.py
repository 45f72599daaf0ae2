"""QDQ graphs drawn by hand, one node at a time, so that each can break one rule."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from fimaq_deploy.graph.rules import Finding, lint

BATCH, TOKENS = "N", 16
ZERO = np.int8(0)


class Sketch:
    """A graph from `x` (N, tokens, width) to whatever `save` is given. Numbers are `floats` around INT8."""

    def __init__(self, width: int = 64, tokens: int = TOKENS, floats: type = np.float16, opset: int = 21) -> None:
        self.width, self.tokens, self.floats, self.opset = width, tokens, floats, opset
        self.random = np.random.default_rng(0)
        self.nodes: list[onnx.NodeProto] = []
        self.stored: list[onnx.TensorProto] = []
        self._count = 0

    def _name(self, kind: str) -> str:
        self._count += 1
        return f"{kind}_{self._count}"

    def node(self, kind: str, *inputs: str, domain: str = "", outputs: int = 1, **attributes: Any) -> Any:
        """Add a node that is named after its first output."""
        names = [self._name(kind) for _ in range(outputs)]
        self.nodes.append(helper.make_node(kind, inputs, names, names[0], domain=domain, **attributes))
        return names[0] if outputs == 1 else names

    def store(self, array: Any, kind: str = "stored") -> str:
        tensor = array if isinstance(array, onnx.TensorProto) else numpy_helper.from_array(np.asarray(array))
        tensor.name = self._name(kind)
        self.stored.append(tensor)
        return tensor.name

    def scale(self, value: Any) -> str:
        return self.store(np.asarray(value, self.floats), "scale")

    def floating(self, *shape: int) -> str:
        return self.store(self.random.standard_normal(shape).astype(self.floats), "float")

    def quantized(self, x: str, scale: Any = 0.05, zero: Any = ZERO, **attributes: Any) -> str:
        """x through QuantizeLinear and DequantizeLinear. A zero of None leaves it out."""
        stored = (self.scale(scale), *(() if zero is None else (self.store(zero, "zero"),)))
        axis = {"axis": attributes["axis"]} if "axis" in attributes else {}
        integers = self.node("QuantizeLinear", x, *stored, **attributes)
        return self.node("DequantizeLinear", integers, *stored, **axis)

    def weight(self, *shape: int, axis: int = 1, zero: Any = None, scale: Any = None) -> str:
        """INT8 weights with one scale for each index of the axis."""
        integers = self.store(self.random.integers(-128, 128, shape).astype(np.int8), "weight")
        scale = self.scale(np.full(shape[axis], 0.01) if scale is None else scale)
        return self.node("DequantizeLinear", integers, scale, *(() if zero is None else (zero,)), axis=axis)

    def weight_int4(self, rows: int, columns: int, block: int | None = 64, axis: int = 0) -> str:
        integers = self.random.integers(-8, 8, rows * columns)
        stored = self.store(helper.make_tensor("", onnx.TensorProto.INT4, (rows, columns), integers), "weight")
        shape = [rows, columns]
        if block is None:
            return self.node("DequantizeLinear", stored, self.scale(np.full(shape[axis], 0.01)), axis=axis)
        shape[axis] //= block
        return self.node("DequantizeLinear", stored, self.scale(np.full(shape, 0.01)), axis=axis, block_size=block)

    def linear(self, x: str, columns: int, rows: int | None = None) -> str:
        """A W8A8 Linear with a bias."""
        y = self.node("MatMul", self.quantized(x), self.weight(rows or self.width, columns))
        return self.node("Add", y, self.floating(columns))

    def attention(
        self,
        x: str = "x",
        *,
        heads: int = 2,
        fused: bool = True,
        quantized: Sequence[str] = ("q", "k", "v", "softmax"),
        around: Callable[[str, str], str] = lambda _name, value: value,
    ) -> str:
        """Self-attention. quantized: which parts have a pair; around: what else a part goes through before it, the
        scores and the context included."""
        size = self.width // heads
        layout = self.store(np.array([0, self.tokens, heads, size]))

        def part(name: str, value: str, order: tuple[int, ...]) -> str:
            value = around(name, self.node("Transpose", self.node("Reshape", value, layout), perm=order))
            return self.quantized(value) if name in quantized else value

        orders = ((0, 2, 1, 3), (0, 2, 3, 1), (0, 2, 1, 3))
        q, k, v = (part(*each) for each in zip("qkv", self._qkv(x, fused), orders, strict=True))
        scores = self.node("Mul", around("scores", self.node("MatMul", q, k)), self.scale(size**-0.5))
        weights = around("softmax", self.node("Softmax", scores, axis=-1))
        if "softmax" in quantized:
            weights = self.quantized(weights, 1 / 127)
        context = around("context", self.node("MatMul", weights, v))
        merged = self.node("Transpose", context, perm=(0, 2, 1, 3))
        merged = self.node("Reshape", merged, self.store(np.array([0, self.tokens, self.width])))
        return self.node("Add", x, self.linear(merged, self.width))

    def _qkv(self, x: str, fused: bool) -> list[str]:
        if not fused:
            return [self.linear(x, self.width) for _ in "qkv"]
        return self.node("Split", self.linear(x, 3 * self.width), outputs=3, axis=2, num_outputs=3)

    def model(self, output: str) -> onnx.ModelProto:
        kind = helper.np_dtype_to_tensor_dtype(np.dtype(self.floats))
        graph = helper.make_graph(
            self.nodes,
            "sketch",
            [helper.make_tensor_value_info("x", kind, [BATCH, self.tokens, self.width])],
            [helper.make_tensor_value_info(output, kind, None)],
            self.stored,
        )
        opsets = [helper.make_opsetid("", self.opset), helper.make_opsetid("com.microsoft", 1)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=10)


@pytest.fixture
def judged(tmp_path: Path) -> Callable[..., tuple[Finding, ...]]:
    """What a target's rules find in a sketch that ends in `output`."""

    def find(sketch: Sketch, output: str, target: str) -> tuple[Finding, ...]:
        onnx.save(sketch.model(output), tmp_path / "sketch.onnx")
        return lint(tmp_path / "sketch.onnx", target)

    return find


@pytest.fixture
def sketch() -> type[Sketch]:
    return Sketch
