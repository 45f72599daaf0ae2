"""A finished graph for runtimes that know an older opset than the one it was written in, or for a newer one.

What an older opset lacks is spelled out in operators that it has: Gelu before 20; scales of 16 bits before 19, around
which numbers become float32; axes as inputs of reductions before 18. What cannot be said is refused: INT4, and scales
by block, before 21.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import cast, get_args

import numpy as np
import onnx_ir as ir
from onnx import defs

from fimaq_deploy.calibration.network.plan import Plan
from fimaq_deploy.calibration.network.rules import AttentionGrids, Decision, LayerGrids
from fimaq_deploy.calibration.quantizers.grid import FloatActivationGrid, FloatWeightGrid
from fimaq_deploy.errors import UserError, shown
from fimaq_deploy.graph.edit import nodes_of, numpy_of, optional_at, read_at, replace, stored, stored_scalar, typed
from fimaq_deploy.target import WeightStorage
from fimaq_deploy.target.numbers import E2M1, E4M3, INT4

OPSETS = (17, 19, 21, 23)
DEFAULT_OPSET = 21
FLOAT4_OPSET = E2M1.opset
_INT4_SINCE = INT4.opset
_FLOAT8_SINCE = E4M3.opset
_IR_VERSIONS = {17: 8, 19: 9, 21: 10, 23: 11}
_HALF = {ir.DataType.FLOAT16, ir.DataType.BFLOAT16}
# What the zero point says too, or what is so by default.
_REDUNDANT = frozenset({"output_dtype", "block_size", "saturate", "precision", "round_mode"})
_REDUCTIONS = ("ReduceL2", "ReduceMax", "ReduceMean", "ReduceMin")


def check_opset(opset: int) -> int:
    """An opset that can be asked for.

    Raises:
        UserError: it is none of them.
    """
    if opset not in OPSETS:
        raise UserError(f"--opset {opset}: expected one of {', '.join(map(str, OPSETS))}")
    return opset


def check_storage(storage: str, opset: int) -> WeightStorage:
    """How weights of at most four bits are stored in files of an opset.

    Raises:
        UserError: no such storage, or the opset has no INT4.
    """
    if storage not in get_args(WeightStorage):
        raise UserError(f"--weight-storage {shown(storage)}: expected one of {', '.join(get_args(WeightStorage))}")
    if opset >= _INT4_SINCE:
        return cast(WeightStorage, storage)
    if storage == "int4":
        raise UserError(f"--weight-storage int4 with --opset {opset}: INT4 came with opset 21; take that, or int8")
    return "int8"


def require_opset(plan: Plan, opset: int | None) -> None:
    """What is decided of layers is sayable in an opset. `to_opset` finds the same, but in a finished graph.

    opset: None is whatever they need.

    Raises:
        UserError: something of it came later.
    """
    needs = ((*_need(decision), name) for name, decision in plan.items())
    since, what, name = max(needs, key=lambda need: need[0], default=(0, "", ""))
    if opset is not None and opset < since:
        others = "" if since > _INT4_SINCE else ", or a recipe of integers without blocks"
        raise UserError(f"--opset {opset}: {name} {what}, which came with opset {since}: take that or newer{others}")


def _need(decision: Decision) -> tuple[int, str]:
    """The first opset that has words for a decision, and for what."""
    if isinstance(decision, LayerGrids):
        if isinstance(decision.weights, FloatWeightGrid):
            few = decision.weights.product == "nvfp4"
            return (FLOAT4_OPSET, "has 4-bit floats") if few else (_FLOAT8_SINCE, "has 8-bit floats")
        return (_INT4_SINCE, "has weights with a scale a block") if decision.weights.block_size else (0, "")
    floats = isinstance(decision, AttentionGrids) and isinstance(decision.operands, FloatActivationGrid)
    return (_FLOAT8_SINCE, "has 8-bit floats") if floats else (0, "")


def least_opset(model: ir.Model, asked: int | None) -> int:
    """The opset that was asked for, or the first that a graph needs.

    Raises:
        UserError: the graph has 4-bit floats, and an older one than theirs was asked for.
    """
    few = any(value.dtype is ir.DataType.FLOAT4E2M1 for value in model.graph.initializers.values())
    if few and asked is not None and asked < FLOAT4_OPSET:
        raise UserError(f"--opset {asked}: the file has 4-bit floats, which came with opset {FLOAT4_OPSET}; take that")
    return (FLOAT4_OPSET if few else DEFAULT_OPSET) if asked is None else asked


def to_opset(model: ir.Model, opset: int) -> None:
    """Rewrite a graph of opset 21 in place.

    Raises:
        UserError: something in it has no words in this opset.
    """
    if opset == DEFAULT_OPSET:
        return
    graph = model.graph
    for first, rewrite in _SINCE:
        if opset < first:
            rewrite(graph, opset)
    graph.opset_imports[""] = opset
    model.ir_version = _IR_VERSIONS[opset]
    for node in graph:
        if not node.domain:
            _fit(node, opset)


def _fit(node: ir.Node, opset: int) -> None:
    """Leave out attributes that say what was so before they came, and refuse what the opset has not."""
    try:
        known = defs.get_schema(node.op_type, opset, "").attributes
    except defs.SchemaError:
        raise UserError(
            f"--opset {opset}: the graph needs {node.op_type} ('{node.name}'), which came later; take a newer opset"
        ) from None
    for name in [name for name in node.attributes if name not in known]:
        if name not in _REDUNDANT:
            raise UserError(f"--opset {opset}: {name} of '{node.name}' came later; take a newer opset")
        node.attributes.pop(name)


def _refuse_int4(graph: ir.Graph, opset: int) -> None:
    for node in nodes_of(graph, "DequantizeLinear"):
        blocked = node.attributes.get_int("block_size", 0) > 0
        if blocked or read_at(node, 0).dtype in (ir.DataType.INT4, ir.DataType.UINT4):
            raise UserError(
                f"--opset {opset}: '{node.name}' dequantizes INT4 or scales by block, which came with opset 21; take "
                "that, or a recipe whose activations are quantized too"
            )


def _refuse_float8(graph: ir.Graph, opset: int) -> None:
    for node in nodes_of(graph, "DequantizeLinear"):
        if read_at(node, 0).dtype is ir.DataType.FLOAT8E4M3FN:
            raise UserError(f"--opset {opset}: '{node.name}' reads 8-bit floats, which came with opset 19; take that")


def _spell_out_gelu(graph: ir.Graph, opset: int) -> None:
    for node in nodes_of(graph, "Gelu"):
        x = read_at(node, 0)
        kind = _numpy_type(x)
        if node.attributes.get_string("approximate", "none") == "tanh":
            cube = _new(graph, node, "Mul", _new(graph, node, "Mul", x, x), x)
            inner = _new(graph, node, "Add", x, _new(graph, node, "Mul", cube, stored_scalar(graph, kind(0.044715))))
            scaled = _new(graph, node, "Mul", inner, stored_scalar(graph, kind(math.sqrt(2 / math.pi))))
            bent = _new(graph, node, "Tanh", scaled)
        else:
            bent = _new(graph, node, "Erf", _new(graph, node, "Mul", x, stored_scalar(graph, kind(math.sqrt(0.5)))))
        half = _new(graph, node, "Mul", x, stored_scalar(graph, kind(0.5)))
        weight = _new(graph, node, "Add", bent, stored_scalar(graph, kind(1)))
        _put(graph, node, _new(graph, node, "Mul", half, weight))


def _widen_quantizers(graph: ir.Graph, opset: int) -> None:
    """Quantize from and dequantize to float32, with a Cast where the graph computes in half precision."""
    for node in nodes_of(graph, "QuantizeLinear", "DequantizeLinear"):
        scale = read_at(node, 1)
        if scale.dtype not in _HALF:
            continue
        numbers = numpy_of(scale)
        if numbers is None:
            raise UserError(f"--opset {opset}: '{node.name}' has a computed scale of 16 bits: take opset 19")
        node.replace_input_with(1, stored(graph, f"{scale.name}_float32", numbers.astype(np.float32)))
        if node.op_type == "QuantizeLinear":
            wide = _new(graph, node, "Cast", read_at(node, 0), dtype=ir.DataType.FLOAT, to=ir.DataType.FLOAT)
            node.replace_input_with(0, wide)
            continue
        out, half = node.outputs[0], scale.dtype
        assert half is not None
        cast = ir.Node("", "Cast", [out], [ir.AttrInt64("to", int(half))], name=f"{node.name}/to_half")
        typed(cast.outputs[0], half, out.shape)
        graph.insert_after(node, cast)
        for user, index in list(out.uses()):
            if user is not cast:
                user.replace_input_with(index, cast.outputs[0])
        cast.outputs[0].name = f"{out.name}_half"
        typed(out, ir.DataType.FLOAT, out.shape)


def _name_axes(graph: ir.Graph, opset: int) -> None:
    """Axes of reductions are attributes."""
    for node in nodes_of(graph, *_REDUCTIONS):
        given = optional_at(node, 1)
        axes = numpy_of(given)
        if given is not None and axes is None:
            raise UserError(f"--opset {opset}: '{node.name}' reduces along computed axes: take opset 18 or newer")
        if axes is not None:
            node.attributes["axes"] = ir.AttrInt64s("axes", [int(axis) for axis in axes.flatten()])
            node.resize_inputs(1)
        node.attributes.pop("noop_with_empty_axes", None)


# What is done below an opset, in this order.
_SINCE: tuple[tuple[int, Callable[[ir.Graph, int], None]], ...] = (
    (_INT4_SINCE, _refuse_int4),
    (20, _spell_out_gelu),
    (_FLOAT8_SINCE, _refuse_float8),
    (19, _widen_quantizers),
    (18, _name_axes),
)


def _numpy_type(value: ir.Value) -> Callable[[float], np.ndarray]:
    assert value.dtype is not None
    kind = value.dtype.numpy()
    return lambda number: np.array(number, kind)


def _new(
    graph: ir.Graph, before: ir.Node, kind: str, *inputs: ir.Value, dtype: ir.DataType | None = None, **attributes: int
) -> ir.Value:
    """The result of a new node in front of another one, of its first input's type and shape."""
    stated = [ir.AttrInt64(name, int(value)) for name, value in attributes.items()]
    node = ir.Node("", kind, list(inputs), stated)
    graph.insert_before(before, node)
    number = sum(one.name is not None and one.name.startswith(f"{before.name}/") for one in graph)
    node.name = f"{before.name}/{kind}_{number}"
    value = typed(node.outputs[0], dtype or inputs[0].dtype, inputs[0].shape)
    value.name = f"{node.name}:0"
    return value


def _put(graph: ir.Graph, node: ir.Node, value: ir.Value) -> None:
    """A value in the place of a node's result."""
    replace(node.outputs[0], value)
    graph.remove(node, safe=True)
