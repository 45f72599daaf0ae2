"""Rules for 8- and 4-bit floats: which of them a target multiplies, with scales of which layout.

What is said of TensorRT was compiled with TensorRT-RTX 1.7.1 for 8.9 and 12.0.
"""

from __future__ import annotations

import onnx_ir as ir

from fimaq_deploy.graph.products import Product
from fimaq_deploy.graph.rules.rule import Found, Place, at_pair, at_weight, block_size, rule
from fimaq_deploy.graph.structure import Structure
from fimaq_deploy.graph.values import input_of, integer_type
from fimaq_deploy.target import Target

_E4M3, _E2M1 = ir.DataType.FLOAT8E4M3FN, ir.DataType.FLOAT4E2M1


@rule("float-type", targets=lambda target: bool(target.floats))
def floats_are_of_known_formats(found: Structure, target: Target) -> Found:
    for pair in found.pairs:
        kind = integer_type(pair.nodes[0])
        if kind is not None and kind.is_floating_point() and kind.itemsize <= 1 and kind not in (_E4M3, _E2M1):
            yield at_pair(
                pair,
                f"8-bit floats of type {kind.name}: {target.name} multiplies FLOAT8E4M3FN",
                "quantize to FLOAT8E4M3FN",
            )


@rule("float-kernel", "warning", targets=lambda target: not target.floats)
def floats_have_a_kernel(found: Structure, target: Target) -> Found:
    few = [pair for pair in found.pairs if integer_type(pair.nodes[0]) in (_E4M3, _E2M1)]
    if few:
        yield at_pair(
            few[0],
            f"{len(few)} of {len(found.pairs)} quantized tensors are 8- or 4-bit floats, for which {target.name} has "
            "no kernel: it computes what the file says, slower than without",
            "take a recipe of integers for this target",
        )


@rule("emulated-mxfp8", targets=lambda target: bool(target.floats))
def scales_of_blocks_are_not_powers_of_two(found: Structure, target: Target) -> Found:
    for product in found.products:
        weight = product.weight
        node = None if weight is None else weight.dequantizer
        scale = None if node is None else input_of(node, 1)
        if weight is None or scale is None or scale.dtype is not ir.DataType.FLOAT8E8M0:
            continue
        yield at_weight(
            product,
            weight,
            "MXFP8, 8-bit floats in blocks whose scales are powers of two: it is emulated, dequantized to FP16 and "
            "multiplied there",
            "use FLOAT8E4M3FN with one scale for each output channel",
        )


@rule("fp8-blocks", targets=lambda target: bool(target.floats))
def fp8_has_no_blocks(found: Structure, target: Target) -> Found:
    for product in found.products:
        weight = product.weight
        if weight is None or weight.dequantizer is None or not _is_mixed_block(product, weight.dequantizer):
            continue
        yield at_weight(
            product,
            weight,
            f"FP8 weights in blocks of {block_size(weight.dequantizer)} meet FP8 activations: {target.name} does not "
            "compile them",
            "use one scale for each output channel",
        )


def _is_mixed_block(product: Product, dequantizer: ir.Node) -> bool:
    scale = input_of(dequantizer, 1)
    powers = scale is not None and scale.dtype is ir.DataType.FLOAT8E8M0  # MXFP8, which another rule tells
    blocks = bool(block_size(dequantizer)) and integer_type(dequantizer) is _E4M3
    return blocks and product.is_integer and not powers


@rule("mixed-product", targets=lambda target: bool(target.floats))
def products_have_one_type(found: Structure, target: Target) -> Found:
    for product in found.products:
        types = [integer_type(each.dequantizer) for each in product.operands if each.dequantizer is not None]
        floats = [kind for kind in types if kind in (_E4M3, _E2M1)]
        if product.is_integer and floats and len(floats) < len(types):
            names = " and ".join(kind.name for kind in types if kind is not None)
            yield Place(
                product.node,
                product.operands[1].value,
                f"a product of {names}: no kernel multiplies the two",
                "quantize both operands to one type",
            )
