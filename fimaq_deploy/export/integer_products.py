"""Layers rewritten as the one form that every runtime computes in integers: a MatMul of three axes or more.

ONNX Runtime has no INT8 convolution with a float result: it would dequantize the images again and convolve floats. And
a MatMul of two axes with its bias becomes Gemm there, which needs an INT32 bias to stay in integers: the head would
dequantize its weights in each run. OpenVINO computes either form in integers. TensorRT-RTX has an INT8 convolution, but
leaves a kernel behind it that moves the channels last, and has none for Turing; the head is left to it as it is. The
numbers are the same.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from onnx_ir.tape import Tape

from fimaq_deploy.graph.edit import integers, is_integer_weight, quantizing_chain


def patches_as_product(graph: ir.Graph) -> None:
    """A quantized convolution whose windows tile the image becomes a product of the windows, quantized, and a matrix.

    A row of either is in the order of the kernel: channel, height, width.
    """
    for node in [node for node in graph if node.op_type == "Conv"]:
        chain = quantizing_chain(node.inputs[0])
        if chain is not None and is_integer_weight(node.inputs[1].producer()) and _tiles(node):
            _flatten_kernels(node.inputs[1].producer())
            _cut_windows(graph, node, chain)
            _multiply(graph, node)


def _tiles(conv: ir.Node) -> bool:
    """Whether the windows see every channel, do not overlap and leave no pixel out."""
    image, kernel = conv.inputs[0].shape, list(conv.inputs[1].shape)[2:]
    return (
        list(conv.attributes.get_ints("strides", [1, 1])) == kernel
        and conv.attributes.get_int("group", 1) == 1
        and not any(conv.attributes.get_ints("pads", []))
        and set(conv.attributes.get_ints("dilations", [1])) == {1}
        and conv.attributes.get_string("auto_pad", "NOTSET") == "NOTSET"
        and all(isinstance(side, int) and side % size == 0 for side, size in zip(image[2:], kernel, strict=True))
    )


def _flatten_kernels(dequantize: ir.Node) -> None:
    """The stored weights [out, in, height, width] as a matrix [in · height · width, out], in place."""
    stored = dequantize.inputs[0]
    kernels = stored.const_value.numpy()
    matrix = np.ascontiguousarray(kernels.reshape(len(kernels), -1).T)
    stored.const_value = ir.tensor(matrix, name=stored.name)
    stored.shape, dequantize.attributes["axis"] = ir.Shape(matrix.shape), ir.AttrInt64("axis", 1)


def _cut_windows(graph: ir.Graph, conv: ir.Node, chain: list[ir.Node]) -> None:
    """Quantize windows [N, rows, columns, in · height · width] instead of the image."""
    batch, channels, *sides = conv.inputs[0].shape
    height, width = list(conv.inputs[1].shape)[2:]
    rows, columns = sides[0] // height, sides[1] // width
    tape = Tape()
    split = tape.op("Reshape", [chain[0].inputs[0], integers(graph, [0, channels, rows, height, columns, width])])
    moved = tape.op("Transpose", [split], {"perm": [0, 2, 4, 1, 3, 5]})
    windows = tape.op("Reshape", [moved, integers(graph, [0, rows, columns, channels * height * width])])
    _start_with(graph, chain, tape, windows, ir.Shape([batch, rows, columns, channels * height * width]))


def _start_with(graph: ir.Graph, chain: list[ir.Node], tape: Tape, value: ir.Value, shape: ir.Shape) -> None:
    """Put the tape before a quantizing chain, which then quantizes the value."""
    value.dtype, value.shape = chain[0].inputs[0].dtype, shape
    graph.insert_before(chain[0], tape.nodes)
    chain[0].replace_input_with(0, value)
    for step in chain:
        step.outputs[0].shape = shape


def _multiply(graph: ir.Graph, conv: ir.Node) -> None:
    """MatMul and Add instead of the convolution; whoever moved its channels to the end need not any more."""
    kernels, *bias = conv.inputs[1:]
    batch, rows, columns, _ = conv.inputs[0].shape
    shape = ir.Shape([batch, rows, columns, kernels.shape[0]])
    kernels.shape = kernels.producer().inputs[0].shape
    tape = Tape()
    product = tape.op("MatMul", [conv.inputs[0], kernels])
    biased = tape.op("Add", [product, *bias]) if bias else product
    image = tape.op("Transpose", [biased], {"perm": [0, 3, 1, 2]})
    for value in (product, biased, image):
        value.dtype = conv.outputs[0].dtype
    product.shape = biased.shape = shape
    image.shape = conv.outputs[0].shape
    graph.insert_before(conv, tape.nodes)
    for node in tape.nodes:
        node.metadata_props.update(conv.metadata_props)
    ir.convenience.replace_all_uses_with(conv.outputs[0], image)
    graph.remove(conv, safe=True)
    for use in list(image.uses()):
        _channels_last(graph, use.node, biased)


def _channels_last(graph: ir.Graph, node: ir.Node, value: ir.Value) -> None:
    """What reads the image as `value`, [N, rows, columns, channels], reads it directly: Swin, and ViT's flattened."""
    if node.op_type == "Transpose" and _moves(node, [0, 2, 3, 1]):
        _replace(node.outputs[0], value)
    elif node.op_type == "Reshape" and len(node.outputs[0].shape or ()) == 3:
        for use in list(node.outputs[0].uses()):
            if use.node.op_type == "Transpose" and _moves(use.node, [0, 2, 1]):
                shape = integers(graph, [0, value.shape[1] * value.shape[2], value.shape[3]])
                tokens = ir.node("Reshape", [value, shape])
                tokens.outputs[0].dtype, tokens.outputs[0].shape = value.dtype, use.node.outputs[0].shape
                graph.insert_before(use.node, tokens)
                _replace(use.node.outputs[0], tokens.outputs[0])


def _replace(old: ir.Value, new: ir.Value) -> None:
    """Let `new` take the place and the name of `old`, which may be an output of the graph."""
    name, old.name = old.name, "v"  # never nameless, which onnx-ir before 1.1 takes for an output that nobody wants
    ir.convenience.replace_all_uses_with(old, new, replace_graph_outputs=True)
    new.name = name


def _moves(node: ir.Node, order: list[int]) -> bool:
    return list(node.attributes.get_ints("perm", [])) == order


def rows_as_batch(graph: ir.Graph) -> None:
    """A quantized MatMul of two axes, such as the head's, gets a third one between Unsqueeze and Squeeze."""
    for node in [node for node in graph if node.op_type == "MatMul"]:
        chain = quantizing_chain(node.inputs[0])
        if chain is not None and is_integer_weight(node.inputs[1].producer()) and len(node.inputs[0].shape or ()) == 2:
            _add_axis(graph, node, chain)


def _add_axis(graph: ir.Graph, product: ir.Node, chain: list[ir.Node]) -> None:
    batch, width = product.inputs[0].shape
    axes = integers(graph, [1])
    tape = Tape()
    _start_with(graph, chain, tape, tape.op("Unsqueeze", [chain[0].inputs[0], axes]), ir.Shape([batch, 1, width]))
    uses = list(product.outputs[0].uses())
    biased = len(uses) == 1 and uses[0].node.op_type == "Add"
    _drop_axis(graph, [product, uses[0].node] if biased else [product], axes)


def _drop_axis(graph: ir.Graph, nodes: list[ir.Node], axes: ir.Value) -> None:
    """Squeeze the result of nodes that run one after another."""
    last, result = nodes[-1], nodes[-1].outputs[0]
    squeeze = ir.node("Squeeze", [result, axes])
    squeezed = squeeze.outputs[0]
    squeezed.dtype, squeezed.shape = result.dtype, result.shape
    graph.insert_after(last, squeeze)
    _replace(result, squeezed)
    squeeze.replace_input_with(0, result)
    for node in nodes:
        batch, width = node.outputs[0].shape
        node.outputs[0].shape = ir.Shape([batch, 1, width])
