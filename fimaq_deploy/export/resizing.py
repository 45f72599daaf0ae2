"""Resizing and cropping of the contract inside of a file: uint8 pixels (N, H, W, C) of any height and width in.

ONNX's Resize with `antialias` widens its filter where it shrinks, as Pillow does. On uint8, with Pillow's coefficient
and without what lies outside of the image, ONNX Runtime's CPU provider computes it as Pillow does but for the last bit
of some weights (docs/log/2026-11-27-pack.md). Sizes and corners are computed in the graph by the rules of
`runtime.preprocessing`. Other runtimes do not execute it: OpenVINO 2026.4 ignores `antialias`, TensorRT refuses it.

Not covered: filters other than bilinear and bicubic, and crops that are larger than what they are cut from.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from fimaq_deploy.contract import Contract
from fimaq_deploy.errors import UserError
from fimaq_deploy.graph.edit import stored, typed

_MODES = {"bilinear": "linear", "bicubic": "cubic"}
_PILLOWS = -0.5  # the coefficient of its cubic filter
_OLDEST = 18  # the opset whose Resize knows `antialias`
_AXES = np.array([1, 2])  # height and width


def require_resizable(contract: Contract, opset: int) -> None:
    """Refuse what ONNX cannot say.

    Raises:
        UserError: another filter or crop, or an opset without it.
    """
    outside = any(whole < part for whole, part in zip(contract.resize, contract.shape[1:], strict=True))
    wanted = {
        f"opset {opset} knows no antialias: export at opset 19 or later": opset >= _OLDEST,
        f"ONNX has no {contract.interpolation} filter: bilinear and bicubic can be": contract.interpolation in _MODES,
        f"a crop that is filled up ({contract.crop_mode}) is not": contract.crop_mode != "border" and not outside,
    }
    for reason, holds in wanted.items():
        if not holds:
            raise UserError(f"resizing cannot be part of the file: {reason}")


class Resizer:
    """Appends operators to a list, whose constants it stores in a graph."""

    def __init__(self, graph: ir.Graph, name: str) -> None:
        self.nodes: list[ir.Node] = []
        self._graph, self._name = graph, name

    def __call__(self, pixels: ir.Value, contract: Contract) -> ir.Value:
        """pixels: uint8 (N, H, W, C). Returns uint8 (N, height, width, C), resized and cropped."""
        sizes = self._sizes(pixels, contract)
        options = {"mode": _MODES[contract.interpolation], "cubic_coeff_a": _PILLOWS, "axes": _AXES.tolist()}
        options |= {"antialias": 1, "exclude_outside": 1}
        resized = self._add("Resize", [pixels, None, None, sizes], ir.DataType.UINT8, **options)
        crop = self._stored("crop", np.array(contract.shape[1:]))
        around = self._add("Cast", [self._add("Sub", [sizes, crop])], ir.DataType.FLOAT, to=ir.DataType.FLOAT.value)
        halved = self._add("Mul", [around, self._stored("half", np.array(0.5, np.float32))], ir.DataType.FLOAT)
        first = self._whole(self._add("Round", [halved], ir.DataType.FLOAT))  # half to even, as Python's
        last = self._add("Add", [first, crop])
        return self._add("Slice", [resized, first, last, self._stored("axes", _AXES)], ir.DataType.UINT8)

    def _sizes(self, pixels: ir.Value, contract: Contract) -> ir.Value:
        """(height, width) of the resized image, int64."""
        wanted = np.array(contract.resize)
        if contract.crop_mode == "squash":
            return self._stored("size", wanted)
        sides = self._add("Shape", [pixels], start=1, end=3)
        if wanted[0] == wanted[1]:  # torchvision's rule, which rounds down
            grown = self._add("Mul", [sides, self._stored("size", wanted[:1])])
            return self._add("Div", [grown, self._add("ReduceMin", [sides], keepdims=1)])
        double = ir.DataType.DOUBLE
        exact = self._add("Cast", [sides], double, to=double.value)
        ratios = self._add("Div", [exact, self._stored("sizes", wanted.astype(np.float64))], double)
        smallest = self._add("ReduceMin", [ratios], double, keepdims=1)
        rounded = self._whole(self._add("Round", [self._add("Div", [exact, smallest], double)], double))
        return self._add("Max", [rounded, self._stored("one", np.array([1]))])

    def _whole(self, value: ir.Value) -> ir.Value:
        return self._add("Cast", [value], to=ir.DataType.INT64.value)

    def _stored(self, name: str, array: np.ndarray) -> ir.Value:
        return stored(self._graph, f"{self._name}_{name}", array)

    def _add(
        self,
        operator: str,
        inputs: list[ir.Value | None],
        dtype: ir.DataType = ir.DataType.INT64,
        **attributes: int | float | str | list[int],
    ) -> ir.Value:
        name = f"{self._name}_{len(self.nodes)}_{operator}"
        out = typed(ir.Value(name=name), dtype, None)
        attached = [ir.convenience.convert_attribute(key, value) for key, value in attributes.items()]
        self.nodes.append(ir.Node("", operator, inputs, attached, outputs=[out], name=name))
        return out
