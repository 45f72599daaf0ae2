"""Rules for weights and other stored tensors."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import onnx_ir as ir

from fimaq_deploy.graph.products import Operand, Product, output_axis
from fimaq_deploy.graph.rules.rule import Found, Place, at_pair, at_weight, block_size, listed, rule
from fimaq_deploy.graph.structure import Structure
from fimaq_deploy.graph.values import MOVES, PRODUCTS, dimension, input_of, integer_type, numbers
from fimaq_deploy.target import Target

_INT4 = (ir.DataType.INT4, ir.DataType.UINT4)


@rule("weight-axis", everywhere=True)
def weight_scales_run_along_the_output(found: Structure, target: Target) -> Found:
    for product, weight, dequantizer in _integer_weights(found):
        scale, expected = numbers(input_of(dequantizer, 1)), output_axis(product, weight)
        if scale is None or scale.ndim != 1 or scale.size == 1 or expected is None:
            continue
        rank = len(weight.value.shape or ())
        if dequantizer.attributes.get_int("axis", 1) % rank != expected:
            yield at_weight(
                product,
                weight,
                "one scale for each input channel: an integer product cannot apply them, so it runs in floating "
                "point or, in ONNX Runtime, with wrong scales",
                "use one scale for each output channel",
            )


@rule("int4-layout", everywhere=True)
def int4_blocks_are_portable(found: Structure, target: Target) -> Found:
    for product, weight, dequantizer in _integer_weights(found):
        problem = _int4_problem(product, weight, dequantizer, target)
        if problem is None:
            continue
        kernel = target.kernel("int4", "layer")
        other_layouts = kernel is not None and kernel.other_layouts
        compiles = other_layouts and not (product.node.op_type == "Conv" and product.is_integer)
        sizes = " or ".join(str(size) for size in sorted(kernel.blocks if kernel else ()))
        place = at_weight(
            product,
            weight,
            f"{problem}: "
            + ("other runtimes refuse it or run it slowly" if compiles else "refused, or dequantized whole"),
            f"store [K, N] weights with blocks of {sizes} along axis 0, or use INT8" if sizes else "use INT8",
        )
        yield replace(place, severity="warning") if compiles else place


def _int4_problem(product: Product, weight: Operand, dequantizer: ir.Node, target: Target) -> str | None:
    """What is wrong with an INT4 weight, None where nothing is or it is no INT4 weight."""
    size, axis = block_size(dequantizer), dequantizer.attributes.get_int("axis", 1)
    if weight.stored is None or integer_type(dequantizer) not in _INT4:
        return None
    if product.node.op_type == "Conv":
        return "INT4 weights in a convolution, for which there is no kernel"
    if not size:
        return None
    kernel = target.kernel("int4", "layer")
    if size not in (kernel.blocks if kernel else ()):
        return f"INT4 in blocks of {size}"
    if axis != 0 or any(step.op_type in MOVES for step in weight.steps):
        return f"INT4 blocks along axis {axis} of weights that are not stored as [K, N]"
    length = dimension(weight.stored, 0)
    if length is not None and length % size:
        return f"{length} input channels do not divide into INT4 blocks of {size}"
    return None


@rule("int4-activation", everywhere=True)
def int4_blocks_read_floats(found: Structure, target: Target) -> Found:
    for product, weight, dequantizer in _integer_weights(found):
        scale = numbers(input_of(dequantizer, 1))
        blocks = 0 if scale is None or scale.ndim < 2 else scale.shape[dequantizer.attributes.get_int("axis", 1)]
        if product.is_integer and integer_type(dequantizer) in _INT4 and blocks > 1:
            yield at_weight(
                product,
                weight,
                "INT4 weights in blocks meet a quantized activation: no integer kernel applies a scale in mid-sum",
                "leave the activation unquantized (W4A16), or give INT4 values one scale per output channel in INT8",
            )


@rule("int4-channels")
def int4_channels_read_floats(found: Structure, target: Target) -> Found:
    for product, weight, dequantizer in _integer_weights(found):
        scale = numbers(input_of(dequantizer, 1))
        if product.is_integer and integer_type(dequantizer) in _INT4 and scale is not None and scale.ndim < 2:
            yield at_weight(
                product,
                weight,
                "INT4 weights meet a quantized activation: the product runs in floating point",
                "store the same integers as INT8, or behind a Cast to INT8, which is folded when the file is loaded",
            )


@rule("int8-blocks")
def int8_has_no_blocks(found: Structure, target: Target) -> Found:
    for product, weight, dequantizer in _integer_weights(found):
        if integer_type(dequantizer) is ir.DataType.INT8 and block_size(dequantizer) and product.is_integer:
            yield at_weight(
                product,
                weight,
                "INT8 weights in blocks: TensorRT does not compile them and ONNX Runtime fails when it runs them",
                "use one scale for each output channel",
            )


@rule("half-product", everywhere=True)
def weights_of_quantized_inputs_are_quantized(found: Structure, target: Target) -> Found:
    for product in found.products:
        weight = product.weight
        if weight is not None and weight.dequantizer is None and product.activations[:1]:
            activation = product.activations[0]
            if activation.dequantizer is not None:
                yield Place(
                    product.node,
                    weight.stored,
                    "the input is quantized but the weights are not: the product runs in floating point",
                    "quantize the weights to INT8, or remove QuantizeLinear and DequantizeLinear before the input",
                )


@rule("integer-bias")
def biases_are_floats(found: Structure, target: Target) -> Found:
    for pair in found.pairs:
        if integer_type(pair.nodes[0]) is ir.DataType.INT32:
            yield at_pair(
                pair,
                f"an INT32 bias behind DequantizeLinear: {target.name} refuses it",
                "keep biases in floating point (in quantize_static: QuantizeBias False)",
            )


@rule("scalar-constant")
def scalars_are_floats(found: Structure, target: Target) -> Found:
    for pair in found.pairs:
        if pair.stored is not None and pair.stored.shape is not None and not len(pair.stored.shape):
            yield at_pair(
                pair,
                f"a quantized constant without dimensions: {target.name} refuses it",
                "quantize only what MatMul, Gemm and Conv read (in quantize_static: op_types_to_quantize)",
            )


@rule("quantized-constant", "warning", everywhere=True)
def only_weights_are_quantized(found: Structure, target: Target) -> Found:
    for pair in found.pairs:
        if pair.stored is None or integer_type(pair.nodes[0]) is ir.DataType.INT32:
            continue
        ends = [node.op_type for node in pair.readers()]
        if ends and not PRODUCTS.intersection(ends):
            yield at_pair(
                pair,
                f"a constant that only {listed(ends)} reads is rounded, and no integer kernel comes of it",
                "keep it in floating point (in quantize_static: op_types_to_quantize MatMul, Gemm and Conv)",
            )


def _integer_weights(found: Structure) -> Iterator[tuple[Product, Operand, ir.Node]]:
    """The products with stored integer weights, those weights and their DequantizeLinear."""
    for product in found.products:
        weight = product.weight
        if weight is not None and weight.dequantizer is not None:
            yield product, weight, weight.dequantizer
