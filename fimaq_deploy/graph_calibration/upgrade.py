"""A graph of any opset and float type as float32 of opset 21."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from onnx import defs, version_converter

from fimaq_deploy.errors import UserError
from fimaq_deploy.export.opset import DEFAULT_OPSET
from fimaq_deploy.graph.saving import LARGEST_BYTES
from fimaq_deploy.graph_calibration.values import lifted

HALF = (ir.DataType.FLOAT16, ir.DataType.BFLOAT16)
_RESULT_TYPES = ("dtype", "output_dtype", "to")
_KEPT_APART = 1024  # bytes of a tensor that the converter need not see


def to_current_opset(model: ir.Model) -> ir.Model:
    """The same in opset 21.

    Raises:
        UserError: an operator that came later.
    """
    opset = model.opset_imports.get("", model.opset_imports.get("ai.onnx", 0))
    if opset > DEFAULT_OPSET:
        lifted(model)
        _back(model, opset)
    elif opset < DEFAULT_OPSET:
        return _forward(model)
    return model


def _forward(model: ir.Model) -> ir.Model:
    """By onnx's converter, which gets the graph without its large numbers: a message holds 2 GB at most."""
    lifted(model)
    numbers = {}
    for value in model.graph.initializers.values():
        tensor = value.const_value
        if tensor is not None and tensor.nbytes > _KEPT_APART:
            numbers[value.name] = tensor
            value.const_value = _unread(tensor)
    proto = ir.serde.serialize_model(model)
    assert proto.ByteSize() < LARGEST_BYTES
    made = ir.serde.deserialize_model(version_converter.convert_version(proto, DEFAULT_OPSET))
    for name, value in made.graph.initializers.items():
        if name in numbers:
            value.const_value = numbers[name]
    made.metadata_props.update(model.metadata_props)
    _copy_notes(model, made)
    return made


def _unread(tensor: ir.TensorProtocol) -> ir.TensorProtocol:
    """A tensor of the same type and shape that lies elsewhere, where nobody looks."""
    return ir.ExternalTensor(
        "unread", 0, tensor.nbytes, tensor.dtype, shape=ir.Shape(tensor.numpy().shape), name=tensor.name or ""
    )


def _copy_notes(old: ir.Model, new: ir.Model) -> None:
    """What an exporter noted at its nodes, which the converter forgets: found again by what they make."""
    notes = {value.name: node.metadata_props for node in old.graph for value in node.outputs}
    for node in new.graph:
        for value in node.outputs:
            node.metadata_props.update(notes.get(value.name, {}))


def _back(model: ir.Model, opset: int) -> None:
    """What did not change since 21 but for further types means the same there."""
    for node in model.graph:
        if node.domain in ("", "ai.onnx"):
            _require_known(node, opset)
    model.graph.opset_imports[""] = DEFAULT_OPSET
    model.ir_version = 10


def _require_known(node: ir.Node, opset: int) -> None:
    try:
        known = defs.get_schema(node.op_type, DEFAULT_OPSET, "").attributes
    except defs.SchemaError:
        raise UserError(f"{node.op_type} ('{node.name}') came with opset {opset}") from None
    late = [name for name in node.attributes if name not in known]
    if late:
        raise UserError(f"{late[0]} of '{node.name}' came after opset {DEFAULT_OPSET}")


def widen(model: ir.Model) -> bool:
    """Make everything that is half precision float32, and say whether something was."""
    graph, changed = model.graph, False
    for value in graph.initializers.values():
        tensor = value.const_value
        if tensor is not None and value.dtype in HALF:
            wide = tensor.numpy().astype(np.float32)
            value.const_value = ir.tensor(wide, name=value.name)
            value.type = ir.TensorType(ir.DataType.FLOAT)
            changed = True
    for node in graph:
        for name, attribute in list(node.attributes.items()):
            if name in _RESULT_TYPES and attribute.value in HALF:
                node.attributes[name] = ir.AttrInt64(name, int(ir.DataType.FLOAT))
            elif attribute.type is ir.AttributeType.TENSOR and attribute.value.dtype in HALF:
                wide = attribute.value.numpy().astype(np.float32)
                node.attributes[name] = ir.AttrTensor(name, ir.tensor(wide))
    for value in (*graph.inputs, *graph.outputs, *(value for node in graph for value in node.outputs)):
        if value.dtype in HALF:
            value.type = ir.TensorType(ir.DataType.FLOAT)
            changed = True
    return changed
