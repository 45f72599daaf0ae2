"""Sizes that a graph computes while it runs, although they are known: all but the batch.

An exporter that was told of a free batch writes Shape, Gather, Concat and arithmetic around every Reshape. What follows
from known sizes becomes a number; a Reshape whose sizes are known but for one gets -1 there.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from fimaq_deploy.graph.edit import numpy_of, optional_at, stored

_Sizes = list["int | None"]  # a vector of integers, or one; None where it is not known
_MOST = 64  # numbers of a tensor that may be sizes

_ARITHMETIC: dict[str, Callable[[int, int], int]] = {
    "Add": lambda a, b: a + b,
    "Sub": lambda a, b: a - b,
    "Mul": lambda a, b: a * b,
    "Div": lambda a, b: a // b,
    "Mod": lambda a, b: a % b,
}


def known_sizes(graph: ir.Graph) -> bool:
    """Store what is known, and say whether something new is. Shapes must have been inferred as far as they can be."""
    before = len(graph.initializers)
    found: dict[ir.Value, _Sizes] = {}
    for node in list(graph):
        if len(node.outputs) != 1 or node.domain not in ("", "ai.onnx"):
            continue
        if node.op_type == "Reshape":
            _fix_reshape(graph, node, found)
            continue
        sizes = _sizes(node, found)
        if sizes is None or len(sizes) > _MOST:
            continue
        out = node.outputs[0]
        found[out] = sizes
        if None not in sizes and out.dtype is ir.DataType.INT64 and out.shape is not None and not out.is_graph_output():
            array = np.array(sizes, np.int64).reshape(() if len(out.shape) == 0 else (-1,))
            ir.convenience.replace_all_uses_with(out, stored(graph, f"{out.name}.known", array))
    return len(graph.initializers) > before


def _fix_reshape(graph: ir.Graph, node: ir.Node, found: dict[ir.Value, _Sizes]) -> None:
    target = node.inputs[1]
    _keep_batch(graph, node)
    sizes = found.get(target) if target is not None else None
    if sizes is None or sizes.count(None) != 1 or -1 in sizes or 0 in sizes:
        return
    numbers = np.array([-1 if size is None else size for size in sizes], np.int64)
    node.replace_input_with(1, stored(graph, f"{node.outputs[0].name}.sizes", numbers))


def _keep_batch(graph: ir.Graph, node: ir.Node) -> None:
    """Where the first size is left open and is the same as before, say so: its name is then known behind it."""
    target, shape = numpy_of(node.inputs[1]), node.inputs[0].shape if node.inputs[0] is not None else None
    if target is None or shape is None or len(target) < 2 or target[0] != -1 or isinstance(shape[0], int):
        return
    rest = [size for size in shape[1:] if isinstance(size, int)]
    if len(rest) == len(shape) - 1 and (target[1:] > 0).all() and math.prod(rest) == math.prod(map(int, target[1:])):
        numbers = np.array([0, *target[1:]], np.int64)
        node.attributes.pop("allowzero", None)
        node.replace_input_with(1, stored(graph, f"{node.outputs[0].name}.kept", numbers))


def _sizes(node: ir.Node, found: dict[ir.Value, _Sizes]) -> _Sizes | None:
    if node.op_type == "Shape":
        return _shape(node)
    given = [_given(value, found) for value in node.inputs]
    if not given or given[0] is None:
        return None
    first = given[0]
    if node.op_type in ("Unsqueeze", "Squeeze", "Cast", "Identity"):
        return first
    if node.op_type == "Concat":
        return [size for part in given if part is not None for size in part] if None not in given else None
    if node.op_type == "Gather":
        index = numpy_of(optional_at(node, 1))
        return None if index is None else [first[int(at)] for at in index.reshape(-1) if -len(first) <= at < len(first)]
    if node.op_type == "Slice":
        return _sliced(node, first)
    if node.op_type in _ARITHMETIC and len(given) == 2 and given[1] is not None:
        return _combined(_ARITHMETIC[node.op_type], first, given[1])
    return None


def _given(value: ir.Value | None, found: dict[ir.Value, _Sizes]) -> _Sizes | None:
    if value is None:
        return None
    if value in found:
        return found[value]
    array = numpy_of(value)
    if array is None or array.dtype != np.int64 or array.size > _MOST or array.ndim > 1:
        return None
    return [int(number) for number in array.reshape(-1)]


def _shape(node: ir.Node) -> _Sizes | None:
    shape = node.inputs[0].shape if node.inputs[0] is not None else None
    if shape is None:
        return None
    whole: _Sizes = [size if isinstance(size, int) else None for size in shape]
    end = node.attributes.get_int("end", len(whole))
    return whole[node.attributes.get_int("start", 0) : end]


def _sliced(node: ir.Node, sizes: _Sizes) -> _Sizes | None:
    bounds = [numpy_of(optional_at(node, place)) for place in (1, 2)]
    steps = numpy_of(optional_at(node, 4))
    if any(bound is None or bound.size != 1 for bound in bounds) or (steps is not None and steps.reshape(-1)[0] != 1):
        return None
    first, last = (int(bound.reshape(-1)[0]) for bound in bounds if bound is not None)
    return sizes[first:last]


def _combined(combine: Callable[[int, int], int], left: _Sizes, right: _Sizes) -> _Sizes | None:
    if len(left) != len(right):
        if 1 not in (len(left), len(right)):
            return None
        length = max(len(left), len(right))
        left, right = (side * length if len(side) == 1 else side for side in (left, right))
    divides = combine in (_ARITHMETIC["Div"], _ARITHMETIC["Mod"])
    if divides and any(b == 0 or (a or 0) < 0 for a, b in _pairs(left, right)):
        return None
    return [None if a is None or b is None else combine(a, b) for a, b in _pairs(left, right)]


def _pairs(left: _Sizes, right: _Sizes) -> list[tuple[int | None, int | None]]:
    return list(zip(left, right, strict=True))
