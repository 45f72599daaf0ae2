"""Rules for the numbers of one quantized tensor: scales, zero points, integer and float types."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx_ir as ir

from fimaq_deploy.graph.products import Pair
from fimaq_deploy.graph.rules.rule import Found, at_pair, block_size, rule
from fimaq_deploy.graph.structure import Structure
from fimaq_deploy.graph.values import PRODUCTS, input_of, integer_type, numbers, stored_tensor
from fimaq_deploy.target import Target
from fimaq_deploy.target.numbers import E2M1, E4M3, INT4, INT8

_SIGNED = (ir.DataType.INT8, ir.DataType.INT4)
_WIDE = (ir.DataType.INT4, ir.DataType.UINT4, ir.DataType.INT16, ir.DataType.UINT16)
_FLOATS_OF_8 = (ir.DataType.FLOAT8E4M3FN, ir.DataType.FLOAT8E5M2)
_FLOAT_NAMES = {ir.DataType.FLOAT: "FP32", ir.DataType.FLOAT16: "FP16", ir.DataType.BFLOAT16: "BF16"}
_HALF = (ir.DataType.FLOAT16, ir.DataType.BFLOAT16)
_FLOATS = {"float32": (ir.DataType.FLOAT,), "float16": _HALF}


@rule("scale", everywhere=True)
def scales_are_positive(found: Structure, target: Target) -> Found:
    for pair in found.pairs:
        scale = numbers(input_of(pair.nodes[0], 1))
        if scale is None:
            continue
        exact = scale.astype(np.float64)
        wrong = exact[~(np.isfinite(exact) & (exact > 0))]
        if wrong.size:
            yield at_pair(pair, f"a scale is {wrong[0]:g}, expected a positive number", "calibrate this tensor again")


@rule("integer-type")
def integers_are_signed(found: Structure, target: Target) -> Found:
    for pair in found.pairs:
        kind = integer_type(pair.nodes[0])
        if kind is None or kind in _SIGNED or kind is ir.DataType.INT32 or kind.is_floating_point():
            continue
        yield at_pair(
            pair,
            f"integers are {kind.name}: {target.name} executes {_integers_of(target)}"
            + ("; it reads UINT8 with zero point 0 as INT8 and clips at 127" if kind is ir.DataType.UINT8 else ""),
            "quantize to symmetric INT8 (in quantize_static: QuantType.QInt8 with ActivationSymmetric)",
        )


def _integers_of(target: Target) -> str:
    """The types of integers that a target multiplies, as its table has them."""
    weights = any(one.format == "int4" or dict(one.packed).get(INT4.name) for one in target.kernels)
    return INT8.title + (f", and {INT4.title} for weights" if weights else "")


@rule("zero-point")
def zero_points_are_zero(found: Structure, target: Target) -> Found:
    for pair, zero in _with_zero_point(found):
        yield at_pair(
            pair,
            f"zero point {zero}: {target.name} executes zero point 0 only",
            "quantize symmetrically (in quantize_static: ActivationSymmetric and WeightSymmetric)",
        )


@rule("costly-zero-point", "note")
def zero_points_cost_time(found: Structure, target: Target) -> Found:
    for pair, zero in _with_zero_point(found):
        if any(node.op_type in PRODUCTS for node in pair.readers()):
            yield at_pair(
                pair,
                f"zero point {zero} of what a product reads: {target.name} computes it, but slower than without",
                "quantize symmetrically, if accuracy allows it",
            )


def _with_zero_point(found: Structure) -> Iterator[tuple[Pair, int]]:
    """The pairs that have a zero point other than 0, and one of it."""
    for pair in found.pairs:
        points = [zero for node in pair.nodes if (zero := numbers(input_of(node, 2))) is not None]
        wrong = [int(zero[zero != 0].flat[0]) for zero in points if zero.any()]
        if wrong:
            yield pair, wrong[0]


@rule("no-zero-point")
def signed_activations_have_zero_points(found: Structure, target: Target) -> Found:
    for pair in found.pairs:
        signed = integer_type(pair.nodes[0]) is ir.DataType.INT8
        if pair.is_activation and signed and any(input_of(node, 2) is None for node in pair.nodes):
            yield at_pair(
                pair,
                "INT8 without a zero point, which the optimiser takes for UINT8 or does not fuse",
                "store an INT8 zero point of 0 at both QuantizeLinear and DequantizeLinear",
            )


@rule("channel-activation", everywhere=True)
def activations_have_one_scale(found: Structure, target: Target) -> Found:
    for pair in found.pairs:
        scale = numbers(input_of(pair.nodes[0], 1))
        if pair.is_activation and scale is not None and scale.size > 1:
            yield at_pair(
                pair,
                f"{scale.size} scales for one activation: what reads it runs in floating point",
                "use one scale for the tensor, and move differences between channels into the weights before it",
            )


@rule("dynamic-scale")
def scales_are_stored(found: Structure, target: Target) -> Found:
    for pair in found.pairs:
        if stored_tensor(input_of(pair.nodes[0], 1)) is None and not _has_scales_of_blocks(pair, target):
            yield at_pair(
                pair,
                "the scale is computed while the graph runs: what reads the tensor runs in floating point",
                "calibrate and store the scale",
            )


def _has_scales_of_blocks(pair: Pair, target: Target) -> bool:
    """Whether a scale that is computed is that of blocks of 4-bit floats, which a target has kernels for."""
    return integer_type(pair.nodes[0]) is ir.DataType.FLOAT4E2M1 and target.kernel("nvfp4", "layer") is not None


@rule("opset", everywhere=True)
def opset_knows_the_types(found: Structure, target: Target) -> Found:
    for feature, needed, pairs in (
        ("INT4 or 16-bit integers, or scales by block", INT4.opset, filter(_needs_opset_21, found.pairs)),
        ("8-bit floats", E4M3.opset, (pair for pair in found.pairs if integer_type(pair.nodes[0]) in _FLOATS_OF_8)),
        (
            "4-bit floats",
            E2M1.opset,
            (pair for pair in found.pairs if integer_type(pair.nodes[0]) is ir.DataType.FLOAT4E2M1),
        ),
        ("FP16 or BF16 scales", 19, (pair for pair in found.pairs if _scale_type(pair) in _HALF)),
        ("one scale for each channel", 13, (pair for pair in found.pairs if _scale_size(pair) > 1)),
    ):
        first = next(pairs, None)
        if first is not None and found.opset < needed:
            yield at_pair(
                first,
                f"opset {found.opset} does not have {feature}, which came with opset {needed}",
                "export at opset 21, or convert with onnx.version_converter",
            )
            return


def _needs_opset_21(pair: Pair) -> bool:
    return integer_type(pair.nodes[0]) in _WIDE or any(block_size(node) for node in pair.nodes)


@rule("precision", "warning", everywhere=True)
def floats_are_the_targets(found: Structure, target: Target) -> Found:
    other = _FLOATS["float16" if target.high_precision == "float32" else "float32"]
    wrong = [pair for pair in found.pairs if _scale_type(pair) in other]
    if wrong:
        kind = _scale_type(wrong[0]) or ir.DataType.UNDEFINED
        yield at_pair(
            wrong[0],
            f"{_FLOAT_NAMES[kind]} around the integers at {len(wrong)} of {len(found.pairs)} quantized tensors: "
            + (
                "attention that is not quantized is not fused, and everything between integers moves twice the bytes"
                if target.high_precision == "float16"
                else "CPU kernels compute in FP32, and fewer products are fused"
            ),
            f"export with {target.high_precision} scales and parameters",
        )


def _scale_type(pair: Pair) -> ir.DataType | None:
    """The float type that others read; images may be quantized in their own."""
    scale = input_of(pair.nodes[-1], 1)
    return None if scale is None else scale.dtype


def _scale_size(pair: Pair) -> int:
    tensor = stored_tensor(input_of(pair.nodes[0], 1))
    return 1 if tensor is None else tensor.size
