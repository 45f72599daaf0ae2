"""A float32 graph in a target's high-precision type: float16 or bfloat16 between float32 images and float32 logits.

1. a quantizer that reads the images keeps its scale in float32, so that no pixel is rounded before it becomes an
   integer; its DequantizeLinear has the same scale in the other type. Other readers get the images cast, once;
2. every stored float32 tensor is rounded to the type, half to even. A finite number beyond its range becomes its
   largest and not infinity: a row of a mask that is all infinity makes softmax divide 0 by 0;
3. operators that name float32 as the type of their result name the other type;
4. the logits are cast to float32.

Attributes that are floats stay: LayerNormalization adds its epsilon in float32 whatever its operands are. Scales are
exact in float16 by construction. bfloat16 rounds those with more than 8 significant bits, and the bounds of Clips of
floats, which still fall on the same integers.

Not covered: a module that computes in float32 within a half-precision model (a trace in float32 does not show it), If,
Loop, and ConstantOfShape without a value.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import ml_dtypes
import numpy as np
import onnx_ir as ir

from fimaq_deploy.export.passes.rewrite import require, whole
from fimaq_deploy.graph.edit import is_operator, maker, numpy_of, stored

_LOWERED = (ir.DataType.FLOAT16, ir.DataType.BFLOAT16)
_RESULT_TYPES = ("dtype", "output_dtype", "to")
_BEFORE_QUANTIZING = frozenset({"Clip", "Reshape", "Transpose"})
_READ_SHAPES = frozenset({"Shape", "Size"})


def _lower(graph: ir.Graph, dtype: ir.DataType) -> bool:
    kept = _keep_images(graph)
    for value in graph.initializers.values():
        if value not in kept and value.dtype is ir.DataType.FLOAT:
            _round(value, dtype)
    for node in graph:
        _name_type(node, dtype)
        for output in node.outputs:
            if output not in kept and output.dtype is ir.DataType.FLOAT:
                output.type = ir.TensorType(dtype)
    for value in graph.inputs:
        _cast_images(graph, value, kept, dtype)
    for index in range(len(graph.outputs)):
        _cast_output(graph, index)
    kept.update(graph.outputs)
    wide = [value.name for node in graph for value in node.outputs if value.dtype is ir.DataType.FLOAT]
    require(set(wide) <= {value.name for value in kept}, f"float32 is left inside: {wide}")
    return True


@whole
def to_float16(model: ir.Model) -> bool:
    return _lower(model.graph, ir.DataType.FLOAT16)


@whole
def to_bfloat16(model: ir.Model) -> bool:
    return _lower(model.graph, ir.DataType.BFLOAT16)


def _keep_images(graph: ir.Graph) -> set[ir.Value]:
    """The values that stay float32: images, and scales and bounds of what quantizes them, as constants of their own."""
    kept = set(graph.inputs)
    for node in list(_quantizers(graph.inputs)):
        kept.update(node.outputs)
        for index, value in enumerate(node.inputs[1:], 1):
            if value is not None and value.dtype is ir.DataType.FLOAT:
                own = _own(graph, value)
                node.replace_input_with(index, own)
                kept.add(own)
    return kept


def _quantizers(images: Iterable[ir.Value]) -> Iterator[ir.Node]:
    """Each QuantizeLinear of the images, and what stands between: a Clip where the grid is smaller than INT8, and the
    Reshape and Transpose that `patches` cuts windows with.
    """
    for value in images:
        for node in value.consumers():
            yield from _until_quantized(node)


def _until_quantized(node: ir.Node) -> list[ir.Node]:
    """A node and those behind it, up to QuantizeLinear; none if anything else reads what it computes."""
    if is_operator(node, "QuantizeLinear"):
        return [node]
    if not is_operator(node, *_BEFORE_QUANTIZING):
        return []
    behind = [_until_quantized(each) for each in node.outputs[0].consumers()]
    return [node, *(each for found in behind for each in found)] if behind and all(behind) else []


def _own(graph: ir.Graph, constant: ir.Value) -> ir.Value:
    """A constant that only what reads the images reads."""
    array = numpy_of(constant)
    assert array is not None, f"{constant.name} has no numbers"
    return stored(graph, f"{constant.name}.images", array)


def _round(value: ir.Value, dtype: ir.DataType) -> None:
    value.const_value = _rounded(value.const_value, dtype, value.name)
    value.type = ir.TensorType(dtype)  # not value.dtype, which would change it in every copy of the graph


def _rounded(tensor: ir.TensorProtocol | None, dtype: ir.DataType, name: str | None) -> ir.TensorProtocol:
    assert tensor is not None, f"{name} has no numbers"
    numbers, largest = tensor.numpy(), float(ml_dtypes.finfo(dtype.numpy()).max)
    within = np.where(np.isfinite(numbers), np.clip(numbers, -largest, largest), numbers)
    return ir.tensor(within.astype(dtype.numpy()), name=name)


def _name_type(node: ir.Node, dtype: ir.DataType) -> None:
    """Where an operator's attributes say that its result is float32, or hold it as numbers, let them say `dtype`."""
    for name, attribute in list(node.attributes.items()):
        if name in _RESULT_TYPES and attribute.value == ir.DataType.FLOAT:
            node.attributes[name] = ir.AttrInt64(name, int(dtype))
        elif attribute.type is ir.AttributeType.TENSOR and attribute.value.dtype is ir.DataType.FLOAT:
            node.attributes[name] = ir.AttrTensor(name, _rounded(attribute.value, dtype, attribute.value.name))


def _cast_images(graph: ir.Graph, images: ir.Value, kept: set[ir.Value], dtype: ir.DataType) -> None:
    """Cast for every reader but those of the shape and the quantizers."""
    uses = [use for use in images.uses() if use.node.op_type not in _READ_SHAPES and use.node.outputs[0] not in kept]
    if uses:
        cast = _cast(f"{images.name}/Cast", images, dtype)
        for use in uses:
            use.node.replace_input_with(use.idx, cast.outputs[0])
        graph.insert_before(graph[0], cast)


def _cast_output(graph: ir.Graph, index: int) -> None:
    """Cast an output that was float32 back to it, under its name."""
    result = graph.outputs[index]
    if result.dtype not in _LOWERED or maker(result) is None:
        return
    cast = _cast(f"{result.name}/Cast", result, ir.DataType.FLOAT)
    result.name, cast.outputs[0].name = f"{result.name}_before_cast", result.name
    graph.append(cast)
    graph.outputs[index] = cast.outputs[0]


def _cast(name: str, value: ir.Value, dtype: ir.DataType) -> ir.Node:
    output = ir.Value(name=name, shape=value.shape, type=ir.TensorType(dtype))
    return ir.Node("", "Cast", [value], [ir.AttrInt64("to", int(dtype))], outputs=[output], name=name)
