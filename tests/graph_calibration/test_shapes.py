from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from fimaq_deploy.graph.edit import numpy_of
from fimaq_deploy.graph_calibration.shapes import known_sizes

INT, FLOAT = ir.DataType.INT64, ir.DataType.FLOAT


def _value(name: str, dtype: ir.DataType, shape: list) -> ir.Value:
    return ir.Value(name=name, type=ir.TensorType(dtype), shape=ir.Shape(shape))


def _stored(graph: ir.Graph, name: str, numbers: object) -> ir.Value:
    array = np.array(numbers, np.int64)
    value = _value(name, INT, list(array.shape))
    value.const_value = ir.tensor(array, name=name)
    graph.register_initializer(value)
    return value


@pytest.mark.parametrize(("kind", "expected"), [("Mul", 96), ("Div", 10), ("Add", 35), ("Sub", 29), ("Mod", 2)])
def test_sizes_that_follow_from_known_ones_are_stored(kind: str, expected: int) -> None:
    x = _value("x", FLOAT, ["N", 3, 32])
    graph = ir.Graph([x], [], nodes=[], opset_imports={"": 21})
    shape = ir.node("Shape", [x], outputs=[_value("shape", INT, [3])])
    gather = ir.node("Gather", [shape.outputs[0], _stored(graph, "at", 2)], outputs=[_value("side", INT, [])])
    other = _stored(graph, "three", 3)
    result = ir.node(kind, [gather.outputs[0], other], outputs=[_value("result", INT, [])])
    reader = ir.node("Identity", [result.outputs[0]], outputs=[_value("out", INT, [])])
    graph.extend([shape, gather, result, reader])
    graph.outputs.append(reader.outputs[0])
    known_sizes(graph)
    assert numpy_of(reader.inputs[0]) == expected


def test_a_reshape_to_one_unknown_size_is_stored() -> None:
    x = _value("x", FLOAT, ["N", 3, 32])
    graph = ir.Graph([x], [], nodes=[], opset_imports={"": 21})
    first = ir.node("Shape", [x], attributes={"start": 0, "end": 1}, outputs=[_value("first", INT, [1])])
    shape = ir.node(
        "Concat",
        [first.outputs[0], _stored(graph, "rest", [96])],
        attributes={"axis": 0},
        outputs=[_value("s", INT, [2])],
    )
    reshape = ir.node("Reshape", [x, shape.outputs[0]], outputs=[_value("out", FLOAT, ["N", 96])])
    graph.extend([first, shape, reshape])
    graph.outputs.append(reshape.outputs[0])
    known_sizes(graph)
    assert numpy_of(reshape.inputs[1]).tolist() == [-1, 96]
