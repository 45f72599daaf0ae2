"""What a QDQ ONNX file stores: its integer weights and the grid of every quantized tensor."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal, TypeVar

import ml_dtypes
import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray

from fimaq_deploy.errors import UserError, shown
from fimaq_deploy.files.whole import is_file
from fimaq_deploy.graph.edit import is_integer_weight, numpy_of, unwidened
from fimaq_deploy.graph.protos import is_text_whole
from fimaq_deploy.manifest import check_file

_Model = TypeVar("_Model")


@dataclass(frozen=True)
class QuantizedTensor:
    """One Q/DQ pair, or one DequantizeLinear of stored weights.

    node: the DequantizeLinear.
    dtype: the container, such as "INT8".
    low, high: the integers that can occur: of a weight those that are stored, of an activation what its Clip and its
        container leave.
    zero_point: the largest, where there are several.
    scale: the numbers in the file, in its high-precision type.
    clipped: whether a Clip stands before the QuantizeLinear or behind it.
    """

    node: str
    kind: Literal["weight", "activation"]
    dtype: str
    zero_point: int
    low: int
    high: int
    scale: NDArray[np.floating]
    clipped: bool


def load_graph(path: str | Path) -> ir.Graph:
    """The graph of an ONNX file. Raises as `load_model`."""
    return load_model(path).graph


def load_model(path: str | Path) -> ir.Model:
    """An ONNX file.

    Raises:
        UserError: no such file, not an ONNX model, one whose external data is missing, or one of a build that is not
            what the build wrote.
    """
    model = _read(path, ir.load)
    for value in model.graph.initializers.values():
        if isinstance(value.const_value, ir.ExternalTensor) and not Path(value.const_value.path).is_file():
            raise UserError(f"{path} keeps its numbers in {value.const_value.path}, which is missing: copy it too")
    return model


def load_proto(path: str | Path) -> onnx.ModelProto:
    """An ONNX file as it is, however broken the graph in it. External data is not read.

    Raises:
        UserError: no such file, not an ONNX model, or one of a build that is not what the build wrote.
    """
    model = _read(path, partial(onnx.load, load_external_data=False))
    if not is_text_whole(model):
        raise UserError(f"{path} is not an ONNX model (names that are no UTF-8): it may be damaged")
    return model


def _read(path: str | Path, load: Callable[[str | Path], _Model]) -> _Model:
    if not is_file(Path(path)):
        raise UserError(f"no ONNX file {shown(str(path))}: name one that exists")
    check_file(Path(path))
    try:
        return load(path)
    except Exception as error:  # protobuf's decoder has an exception of its own
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{path} is not an ONNX model ({reason}): it may be truncated or of another format") from error


def integer_weights(path: str | Path) -> dict[str, NDArray[np.generic]]:
    """The integers of every quantized weight by its name in the file; INT4 is unpacked, one integer an int8. Values of
    8-bit floats are float32.
    """
    found = {}
    for node in load_graph(path):
        stored = unwidened(node.inputs[0]) if is_integer_weight(node) else None
        if stored is not None and (array := numpy_of(stored)) is not None:
            found[str(stored.name)] = array if array.dtype.kind in "iu" else array.astype(np.float32)
    return found


def check_grids(path: str | Path) -> list[QuantizedTensor]:
    """Every quantized tensor of a file, in execution order."""
    return list(_grids(load_graph(path)))


def _grids(graph: ir.Graph) -> Iterator[QuantizedTensor]:
    for node in graph:
        if node.op_type == "DequantizeLinear":
            yield _weight(node) if is_integer_weight(node) else _activation(node)


def _weight(node: ir.Node) -> QuantizedTensor:
    kept, scale, zero = unwidened(node.inputs[0]), _stored(node, 1), numpy_of(_input(node, 2))
    integers = numpy_of(kept)
    assert integers is not None, node.name
    return QuantizedTensor(
        node=str(node.name),
        kind="weight",
        dtype=_type_name(kept),
        zero_point=0 if zero is None else int(zero.max()),
        low=int(integers.min()),
        high=int(integers.max()),
        scale=scale,
        clipped=False,
    )


def _activation(node: ir.Node) -> QuantizedTensor:
    zero, scale = _stored(node, 2), _stored(node, 1)
    if zero.dtype.kind not in "iu":  # a floating-point format saturates at its largest value
        largest = float(ml_dtypes.finfo(zero.dtype).max)
        name = _type_name(_input(node, 2))
        return QuantizedTensor(str(node.name), "activation", name, 0, -int(largest), int(largest), scale, False)
    low, high = np.iinfo(zero.dtype).min, np.iinfo(zero.dtype).max
    bounds = _clipped_integers(node, float(scale.max()), int(zero.max()))
    if bounds is not None:
        low, high = max(low, bounds[0]), min(high, bounds[1])
    container = _type_name(_input(node, 2))  # said even where the file does not type what is computed
    return QuantizedTensor(
        str(node.name), "activation", container, int(zero.max()), low, high, scale, bounds is not None
    )


def _clipped_integers(dequantize: ir.Node, scale: float, zero: int) -> tuple[int, int] | None:
    """The integers that a Clip lets through: of integers before DequantizeLinear, or of floats before the quantizer."""
    before = _producer(dequantize)
    if before is not None and before.op_type == "Clip":
        return int(_stored(before, 1)), int(_stored(before, 2))
    clip = None if before is None else _producer(before)
    if clip is None or clip.op_type != "Clip":
        return None
    first, last = (int(np.rint(float(_stored(clip, index)) / scale + zero)) for index in (1, 2))
    return first, last


def _producer(node: ir.Node) -> ir.Node | None:
    return None if node.inputs[0] is None else node.inputs[0].producer()


def _input(node: ir.Node, index: int) -> ir.Value | None:
    return node.inputs[index] if index < len(node.inputs) else None


def _stored(node: ir.Node, index: int) -> np.ndarray:
    array = numpy_of(_input(node, index))
    if array is None:
        raise UserError(
            f"node {node.name}: input {index} is not stored in the file: scales and zero points must be constants"
        )
    return array


def _type_name(value: ir.Value | None) -> str:
    return value.dtype.name if value is not None and value.dtype is not None else "unknown"
