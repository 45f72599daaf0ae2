"""A quantized convolution whose windows tile the image becomes a product of the windows, quantized, and a matrix.

    Conv(DQ(Q(x)), W) = move channels first(windows(DQ(Q(x))) · M),   DQ(Q(·)) works number by number, so
    windows(DQ(Q(x))) = DQ(Q(windows(x)))

A row of either operand is in the order of the kernel: channel, height, width. It holds where the windows see every
channel (one group), do not overlap and leave no pixel out (strides as the kernel, no padding or dilation, sides that
divide), the images have one scale, and each output channel of the weights at most one of its own.

ONNX Runtime has no INT8 convolution with a float result: it would dequantize the images again and convolve floats.
OpenVINO computes either form in integers. TensorRT-RTX has an INT8 convolution, but leaves a kernel behind it that
moves the channels last, and has none for Turing.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from onnx_ir.tape import Tape

from fimaq_deploy.export.passes.rewrite import Rewrite
from fimaq_deploy.export.passes.windows import start_with
from fimaq_deploy.graph.edit import (
    fixed,
    has_one_scale,
    is_integer_weight,
    is_operator,
    maker,
    quantizing_chain,
    rank,
    read_at,
    replace,
    sizes,
    stored_axes,
    typed,
)


def obstacle(conv: ir.Node) -> str | None:
    chain = quantizing_chain(conv.inputs[0])
    if chain is None:
        return "its images are not quantized, or something else reads them"
    if not is_integer_weight(maker(conv.inputs[1])):
        return "its weights are not stored integers"
    if len(read_at(conv, 1).uses()) > 1 or len(read_at(_dequantizer(conv), 0).uses()) > 1:
        return "something else reads its weights"
    if not has_one_scale(chain):
        return "its images have a scale for each channel, or one that is not stored"
    if _dequantizer(conv).attributes.get_int("axis", 1) != 0 and read_at(_dequantizer(conv), 1).shape != ():
        return "its weights have no scale for each output channel"
    if conv.outputs[0].is_graph_output():
        return "it makes an output of the graph"
    return _uncovered(conv)


def _dequantizer(conv: ir.Node) -> ir.Node:
    node = maker(read_at(conv, 1))
    assert node is not None
    return node


def _uncovered(conv: ir.Node) -> str | None:
    """Why the windows do not see every channel, overlap or leave a pixel out."""
    image, kernels = read_at(conv, 0), read_at(conv, 1)
    if rank(image) != 4 or rank(kernels) != 4:
        return "it is not a convolution of images whose shape is known"
    kernel, attributes = list(sizes(kernels))[2:], conv.attributes
    if list(attributes.get_ints("strides", [1, 1])) != kernel:
        return "its windows overlap or leave pixels out"
    if attributes.get_int("group", 1) != 1:
        return "its windows see only some of the channels"
    if any(attributes.get_ints("pads", [])) or attributes.get_string("auto_pad", "NOTSET") != "NOTSET":
        return "it pads the image"
    if set(attributes.get_ints("dilations", [1])) != {1}:
        return "its windows have holes"
    if not all(isinstance(n, int) and n % k == 0 for n, k in zip(sizes(image)[2:], kernel, strict=True)):  # type: ignore[operator]
        return "the image does not divide into windows, or its size is not known"
    return None


def rewrite(graph: ir.Graph, conv: ir.Node) -> None:
    chain = quantizing_chain(conv.inputs[0])
    assert chain is not None
    _flatten_kernels(_dequantizer(conv))
    _cut_windows(graph, conv, chain)
    _multiply(graph, conv)


def _flatten_kernels(dequantize: ir.Node) -> None:
    """The stored weights [out, in, height, width] as a matrix [in · height · width, out], in place."""
    stored = read_at(dequantize, 0)
    assert stored.const_value is not None
    kernels = stored.const_value.numpy()
    matrix = np.ascontiguousarray(kernels.reshape(len(kernels), -1).T)
    stored.const_value = ir.tensor(matrix, name=stored.name)
    stored.shape, dequantize.attributes["axis"] = ir.Shape(matrix.shape), ir.AttrInt64("axis", 1)


def _cut_windows(graph: ir.Graph, conv: ir.Node, chain: list[ir.Node]) -> None:
    """Quantize windows [N, rows, columns, in · height · width] instead of the image."""
    image = read_at(conv, 0)
    channels, height, width = (fixed(read_at(conv, 1), axis) for axis in (1, 2, 3))
    rows, columns = fixed(image, 2) // height, fixed(image, 3) // width
    tape = Tape()
    split = tape.op("Reshape", [chain[0].inputs[0], stored_axes(graph, [0, channels, rows, height, columns, width])])
    moved = tape.op("Transpose", [split], {"perm": [0, 2, 4, 1, 3, 5]})
    windows = tape.op("Reshape", [moved, stored_axes(graph, [0, rows, columns, channels * height * width])])
    start_with(graph, chain, tape, windows, [sizes(image)[0], rows, columns, channels * height * width])


def _multiply(graph: ir.Graph, conv: ir.Node) -> None:
    """MatMul and Add instead of the convolution; whoever moved its channels to the end need not any more."""
    windows, kernels, *bias = conv.inputs
    assert windows is not None and kernels is not None
    dtype, channels = conv.outputs[0].dtype, fixed(kernels, 0)
    shape = ir.Shape([*sizes(windows)[:3], channels])
    kernels.shape = read_at(_dequantizer(conv), 0).shape
    tape = Tape()
    product = typed(tape.op("MatMul", [windows, kernels]), dtype, shape)
    biased = typed(tape.op("Add", [product, *bias]), dtype, shape) if bias else product
    image = typed(tape.op("Transpose", [biased], {"perm": [0, 3, 1, 2]}), dtype, conv.outputs[0].shape)
    graph.insert_before(conv, tape.nodes)
    for node in tape.nodes:
        node.metadata_props.update(conv.metadata_props)
    ir.convenience.replace_all_uses_with(conv.outputs[0], image)
    graph.remove(conv, safe=True)
    for use in list(image.uses()):
        _channels_last(graph, use.node, biased)


def _channels_last(graph: ir.Graph, node: ir.Node, value: ir.Value) -> None:
    """What reads the image as `value`, [N, rows, columns, channels], reads it directly: Swin, and ViT's flattened."""
    if _moves(node, [0, 2, 3, 1]):
        replace(node.outputs[0], value)
    elif is_operator(node, "Reshape") and rank(node.outputs[0]) == 3:
        for use in list(node.outputs[0].uses()):
            if _moves(use.node, [0, 2, 1]):
                shape = stored_axes(graph, [0, fixed(value, 1) * fixed(value, 2), fixed(value, 3)])
                tokens = ir.node("Reshape", [value, shape])
                typed(tokens.outputs[0], value.dtype, use.node.outputs[0].shape)
                graph.insert_before(use.node, tokens)
                replace(use.node.outputs[0], tokens.outputs[0])


def _moves(node: ir.Node, order: list[int]) -> bool:
    return is_operator(node, "Transpose") and list(node.attributes.get_ints("perm", [])) == order


patches_as_product = Rewrite("patches_as_product", "Conv", obstacle, rewrite)
