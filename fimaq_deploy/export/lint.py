"""What keeps a QDQ file from running on a target as it was meant to, found without compiling it.

`lint` reads any QDQ ONNX file and applies the rules that the target names (`fimaq_deploy.target`) and those that hold
for every runtime. An error is a file that the runtime refuses, computes otherwise than it says, or runs in floating
point or with unfused attention although it is quantized. A warning costs time or accuracy and gains nothing. A note
says what could not be judged.

Where a rule states a fact of TensorRT it was measured on TensorRT-RTX 1.7.1, compiled for 8.9; where of ONNX Runtime,
on version 1.31 on x86.

Not covered: see `fimaq_deploy.export.structure`; and that what is written is fast, which `fimaq-deploy audit` judges
from the compiled plan.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import onnx_ir as ir

from fimaq_deploy.export.structure import (
    MOVES,
    PRODUCTS,
    QUANTIZERS,
    Attention,
    Operand,
    Pair,
    Product,
    Structure,
    dimension,
    input_of,
    integer_type,
    numbers,
    operand,
    output_axis,
    producer,
    read_structure,
    readers,
    sources,
    stored_tensor,
)
from fimaq_deploy.target import Target, find_target

Severity = Literal["error", "warning", "note"]

_SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")
_INT4 = (ir.DataType.INT4, ir.DataType.UINT4)
_SIGNED = (ir.DataType.INT8, ir.DataType.INT4)
_FLOAT_NAMES = {ir.DataType.FLOAT: "FP32", ir.DataType.FLOAT16: "FP16", ir.DataType.BFLOAT16: "BF16"}
_HALF = (ir.DataType.FLOAT16, ir.DataType.BFLOAT16)
_FLOATS = {"float32": (ir.DataType.FLOAT,), "float16": _HALF}
# What ONNX Runtime's optimiser carries integers through, and where it stops.
_CARRIED = frozenset({"Reshape", "Slice", "Squeeze", "Transpose", "Unsqueeze"})
_NOT_CARRIED = MOVES - _CARRIED - {"Expand", "Identity"}
_INTEGERS_IN_ONE_OPERATOR = frozenset({"ConvInteger", "DynamicQuantizeLinear", "MatMulInteger"})
# Operators with an integer form of their own where their result is quantized too.
_INTEGER_IF_REQUANTIZED = frozenset(
    {"Add", "AveragePool", "Concat", "GlobalAveragePool", "LeakyRelu", "Mul", "Sigmoid", "Softmax", "Where"}
)
_ATTENTION_OPERATORS = frozenset({"Attention", "MultiHeadAttention", "QAttention", "GroupQueryAttention"})


@dataclass(frozen=True)
class Finding:
    """One broken rule in one place. `node` and `tensor` are names in the file, empty where it is about the whole."""

    rule: str
    severity: Severity
    node: str
    tensor: str
    problem: str
    remedy: str


@dataclass(frozen=True)
class Rule:
    """A rule by name. everywhere: whether it holds for every target, or only for those that name it."""

    name: str
    severity: Severity
    everywhere: bool
    check: Callable[[Structure, Target], Iterator[Finding]]


Found = Iterator["_Place"]


@dataclass(frozen=True)
class _Place:
    """Where a rule is broken, before its name and severity are added."""

    at: ir.Node | None
    tensor: ir.Value | None
    problem: str
    remedy: str
    severity: Severity | None = None


RULES: dict[str, Rule] = {}


def lint(path: str | Path, target: str | Target) -> tuple[Finding, ...]:
    """Everything in an ONNX file that breaks a rule of a target: errors first, then in execution order.

    Raises:
        UserError: unknown target, no such file, or not an ONNX model.
    """
    rules = find_target(target) if isinstance(target, str) else target
    structure = read_structure(path)
    applied = [rule for rule in RULES.values() if rule.everywhere or rule.name in rules.lint_rules]
    found = [finding for rule in applied for finding in rule.check(structure, rules)]
    order = {node.name: number for number, node in enumerate(structure.graph)}
    return tuple(sorted(found, key=lambda f: (_SEVERITIES.index(f.severity), order.get(f.node, -1))))


def _rule(
    name: str, severity: Severity = "error", *, everywhere: bool = False
) -> Callable[[Callable[[Structure, Target], Found]], Callable[[Structure, Target], Found]]:
    """Register a function that yields the places where its rule is broken."""

    def register(check: Callable[[Structure, Target], Found]) -> Callable[[Structure, Target], Found]:
        def findings(structure: Structure, target: Target) -> Iterator[Finding]:
            for place in check(structure, target):
                node, tensor = (str(thing.name or "") if thing else "" for thing in (place.at, place.tensor))
                yield Finding(name, place.severity or severity, node, tensor, place.problem, place.remedy)

        RULES[name] = Rule(name, severity, everywhere, findings)
        return check

    return register


# --- the numbers of one tensor ---


@_rule("scale", everywhere=True)
def scales_are_positive(found: Structure, target: Target) -> Found:
    for pair in found.pairs:
        scale = numbers(input_of(pair.nodes[0], 1))
        if scale is not None and not (np.isfinite(scale.astype(np.float64)) & (scale > 0)).all():
            wrong = scale[~(np.isfinite(scale.astype(np.float64)) & (scale > 0))].flat[0]
            yield _at_pair(pair, f"a scale is {wrong}, expected a positive number", "calibrate this tensor again")


@_rule("integer-type")
def integers_are_signed(found: Structure, target: Target) -> Found:
    for pair in found.pairs:
        kind = integer_type(pair.nodes[0])
        if kind is None or kind in _SIGNED or kind is ir.DataType.INT32 or kind.is_floating_point():
            continue
        yield _at_pair(
            pair,
            f"integers are {kind.name}: {target.name} executes INT8, and INT4 for weights"
            + ("; it reads UINT8 with zero point 0 as INT8 and clips at 127" if kind is ir.DataType.UINT8 else ""),
            "quantize to symmetric INT8 (in quantize_static: QuantType.QInt8 with ActivationSymmetric)",
        )


@_rule("zero-point")
def zero_points_are_zero(found: Structure, target: Target) -> Found:
    for pair in found.pairs:
        points = [zero for node in pair.nodes if (zero := numbers(input_of(node, 2))) is not None]
        wrong = [int(zero[zero != 0].flat[0]) for zero in points if zero.any()]
        if wrong:
            yield _at_pair(
                pair,
                f"zero point {wrong[0]}: {target.name} executes zero point 0 only",
                "quantize symmetrically (in quantize_static: ActivationSymmetric and WeightSymmetric)",
            )


@_rule("no-zero-point")
def signed_activations_have_zero_points(found: Structure, target: Target) -> Found:
    for pair in found.pairs:
        signed = integer_type(pair.nodes[0]) is ir.DataType.INT8
        if pair.is_activation and signed and any(input_of(node, 2) is None for node in pair.nodes):
            yield _at_pair(
                pair,
                "INT8 without a zero point, which the optimiser takes for UINT8 or does not fuse",
                "store an INT8 zero point of 0 at both QuantizeLinear and DequantizeLinear",
            )


@_rule("channel-activation", everywhere=True)
def activations_have_one_scale(found: Structure, target: Target) -> Found:
    for pair in found.pairs:
        scale = numbers(input_of(pair.nodes[0], 1))
        if pair.is_activation and scale is not None and scale.size > 1:
            yield _at_pair(
                pair,
                f"{scale.size} scales for one activation: what reads it runs in floating point",
                "use one scale for the tensor, and move differences between channels into the weights before it",
            )


@_rule("dynamic-scale")
def scales_are_stored(found: Structure, target: Target) -> Found:
    for pair in found.pairs:
        if stored_tensor(input_of(pair.nodes[0], 1)) is None:
            yield _at_pair(
                pair,
                "the scale is computed while the graph runs: what reads the tensor runs in floating point",
                "calibrate and store the scale",
            )


@_rule("opset", everywhere=True)
def opset_knows_the_types(found: Structure, target: Target) -> Found:
    for feature, needed, pairs in (
        ("INT4 or 16-bit integers, or scales by block", 21, filter(_needs_opset_21, found.pairs)),
        ("FP16 or BF16 scales", 19, (pair for pair in found.pairs if _scale_type(pair) in _HALF)),
        ("one scale for each channel", 13, (pair for pair in found.pairs if _scale_size(pair) > 1)),
    ):
        first = next(pairs, None)
        if first is not None and found.opset < needed:
            yield _at_pair(
                first,
                f"opset {found.opset} does not have {feature}, which came with opset {needed}",
                "export at opset 21, or convert with onnx.version_converter",
            )
            return


def _needs_opset_21(pair: Pair) -> bool:
    wide = (*_INT4, ir.DataType.INT16, ir.DataType.UINT16)
    return integer_type(pair.nodes[0]) in wide or any(_block_size(node) for node in pair.nodes)


def _scale_type(pair: Pair) -> ir.DataType | None:
    scale = input_of(pair.nodes[0], 1)
    return None if scale is None else scale.dtype


def _scale_size(pair: Pair) -> int:
    tensor = stored_tensor(input_of(pair.nodes[0], 1))
    return 1 if tensor is None else tensor.size


def _block_size(quantizer: ir.Node) -> int:
    return quantizer.attributes.get_int("block_size", 0)


# --- weights ---


@_rule("weight-axis", everywhere=True)
def weight_scales_run_along_the_output(found: Structure, target: Target) -> Found:
    for product, weight, dequantizer in _integer_weights(found):
        scale, expected = numbers(input_of(dequantizer, 1)), output_axis(product, weight)
        if scale is None or scale.ndim != 1 or scale.size == 1 or expected is None:
            continue
        rank = len(weight.value.shape or ())
        if dequantizer.attributes.get_int("axis", 1) % rank != expected:
            yield _at_weight(
                product,
                weight,
                "one scale for each input channel: an integer product cannot apply them, so it runs in floating "
                "point or, in ONNX Runtime, with wrong scales",
                "use one scale for each output channel",
            )


@_rule("int4-layout", everywhere=True)
def int4_blocks_are_portable(found: Structure, target: Target) -> Found:
    for product, weight, dequantizer in _integer_weights(found):
        if weight.stored is not None and integer_type(dequantizer) in _INT4:
            problem = _int4_problem(product, weight, dequantizer, target)
            if problem:
                sizes = " or ".join(str(size) for size in sorted(target.int4_block_sizes))
                yield _at_weight(
                    product, weight, problem, f"store [K, N] weights with blocks of {sizes} along axis 0, or use INT8"
                )


def _int4_problem(product: Product, weight: Operand, dequantizer: ir.Node, target: Target) -> str | None:
    """What is wrong with an INT4 weight, None where nothing is."""
    size, axis = _block_size(dequantizer), dequantizer.attributes.get_int("axis", 1)
    if product.node.op_type == "Conv":
        return "INT4 weights in a convolution, for which there is no kernel"
    if not size:
        return None
    if size not in target.int4_block_sizes:
        return f"INT4 in blocks of {size}"
    if axis != 0 or any(step.op_type in MOVES for step in weight.steps):
        return f"INT4 blocks along axis {axis} of weights that are not stored as [K, N]"
    length = dimension(weight.stored, 0) if weight.stored is not None else None
    if length is not None and length % size:
        return f"{length} input channels do not divide into INT4 blocks of {size}"
    return None


@_rule("int4-activation", everywhere=True)
def int4_blocks_read_floats(found: Structure, target: Target) -> Found:
    for product, weight, dequantizer in _integer_weights(found):
        scale = numbers(input_of(dequantizer, 1))
        blocks = 0 if scale is None or scale.ndim < 2 else scale.shape[dequantizer.attributes.get_int("axis", 1)]
        if product.is_integer and integer_type(dequantizer) in _INT4 and blocks > 1:
            yield _at_weight(
                product,
                weight,
                "INT4 weights in blocks meet a quantized activation: no integer kernel applies a scale in mid-sum",
                "leave the activation unquantized (W4A16), or give INT4 values one scale per output channel in INT8",
            )


@_rule("int4-channels")
def int4_channels_read_floats(found: Structure, target: Target) -> Found:
    for product, weight, dequantizer in _integer_weights(found):
        scale = numbers(input_of(dequantizer, 1))
        if product.is_integer and integer_type(dequantizer) in _INT4 and scale is not None and scale.ndim < 2:
            yield _at_weight(
                product,
                weight,
                "INT4 weights meet a quantized activation: the product runs in floating point",
                "store the same integers as INT8",
            )


@_rule("int8-blocks")
def int8_has_no_blocks(found: Structure, target: Target) -> Found:
    for product, weight, dequantizer in _integer_weights(found):
        if integer_type(dequantizer) is ir.DataType.INT8 and _block_size(dequantizer) and product.is_integer:
            yield _at_weight(
                product,
                weight,
                "INT8 weights in blocks: TensorRT does not compile them and ONNX Runtime fails when it runs them",
                "use one scale for each output channel",
            )


@_rule("half-product", everywhere=True)
def weights_of_quantized_inputs_are_quantized(found: Structure, target: Target) -> Found:
    for product in found.products:
        weight = product.weight
        if weight is not None and weight.dequantizer is None and product.activations[:1]:
            activation = product.activations[0]
            if activation.dequantizer is not None:
                yield _Place(
                    product.node,
                    weight.stored,
                    "the input is quantized but the weights are not: the product runs in floating point",
                    "quantize the weights to INT8, or remove QuantizeLinear and DequantizeLinear before the input",
                )


@_rule("integer-bias")
def biases_are_floats(found: Structure, target: Target) -> Found:
    for pair in found.pairs:
        if integer_type(pair.nodes[0]) is ir.DataType.INT32:
            yield _at_pair(
                pair,
                f"an INT32 bias behind DequantizeLinear: {target.name} refuses it",
                "keep biases in floating point (in quantize_static: QuantizeBias False)",
            )


@_rule("scalar-constant")
def scalars_are_floats(found: Structure, target: Target) -> Found:
    for pair in found.pairs:
        if pair.stored is not None and pair.stored.shape is not None and not len(pair.stored.shape):
            yield _at_pair(
                pair,
                f"a quantized constant without dimensions: {target.name} refuses it",
                "quantize only what MatMul, Gemm and Conv read (in quantize_static: op_types_to_quantize)",
            )


@_rule("quantized-constant", "warning", everywhere=True)
def only_weights_are_quantized(found: Structure, target: Target) -> Found:
    for pair in found.pairs:
        if pair.stored is None or integer_type(pair.nodes[0]) is ir.DataType.INT32:
            continue
        ends = [node.op_type for node in pair.readers()]
        if ends and not PRODUCTS.intersection(ends):
            yield _at_pair(
                pair,
                f"a constant that only {_listed(ends)} reads is rounded, and no integer kernel comes of it",
                "keep it in floating point (in quantize_static: op_types_to_quantize MatMul, Gemm and Conv)",
            )


def _integer_weights(found: Structure) -> Iterator[tuple[Product, Operand, ir.Node]]:
    """The products with stored integer weights, those weights and their DequantizeLinear."""
    for product in found.products:
        weight = product.weight
        if weight is not None and weight.dequantizer is not None:
            yield product, weight, weight.dequantizer


# --- attention ---


@_rule("half-attention")
def attention_is_quantized_whole_or_not(found: Structure, target: Target) -> Found:
    for attention in found.attentions:
        done, missing = _split(attention)
        if done and missing:
            fits = _envelope(attention, target) is None
            yield _Place(
                attention.softmax,
                attention.weights.value,
                f"{_and(done)} quantized but not {_and(missing)}: attention is not fused and runs as single kernels",
                f"quantize {_and(missing)} too" if fits else f"remove the quantizers of {_and(done)}",
            )


@_rule("attention-envelope")
def quantized_attention_fits_a_kernel(found: Structure, target: Target) -> Found:
    for attention in found.attentions:
        problem = _envelope(attention, target)
        if problem is None or _split(attention)[1]:
            continue
        unknown = None in (attention.head_size, attention.tokens)
        yield _Place(
            attention.softmax,
            attention.weights.value,
            problem if unknown else f"{problem}: quantized attention of this shape is not fused",
            "store shapes in the file" if unknown else "leave q, k, v and the softmax output unquantized",
            "note" if unknown else None,
        )


@_rule("qkv-output")
def fused_qkv_results_are_quantized(found: Structure, target: Target) -> Found:
    for attention in found.attentions:
        done, _ = _split(attention)
        common = set.intersection(*(sources(each.value) for each in (attention.q, attention.k, attention.v)))
        qkv = next((product for product in found.products if product.node in common), None)
        if qkv is None or done or not qkv.is_integer:
            continue
        fits = _envelope(attention, target) is None
        yield _Place(
            qkv.node,
            qkv.node.outputs[0],
            "one product computes q, k and v in integers but its result is not quantized: its weights are "
            "dequantized at run time and it runs in floating point",
            "quantize its result and the softmax output" if fits else "split it into three products, for q, k and v",
        )


@_rule("quantized-scores")
def scores_stay_floats(found: Structure, target: Target) -> Found:
    for attention in found.attentions:
        between = _quantizer_of_scores(attention)
        if between is not None:
            yield _Place(
                between,
                between.inputs[0],
                "q·kᵀ is quantized before its softmax: attention is not fused and runs as single kernels",
                "remove this pair (in quantize_static: OpTypesToExcludeOutputQuantization MatMul, and no Softmax)",
            )


def _quantizer_of_scores(attention: Attention) -> ir.Node | None:
    """The QuantizeLinear between q·kᵀ and the softmax that is nearest to the softmax."""
    node = producer(attention.softmax.inputs[0])
    while node is not None and node is not attention.scores:
        if node.op_type == "QuantizeLinear":
            return node
        paths = [producer(v) for v in node.inputs if v is not None and stored_tensor(v) is None]
        node = next((each for each in paths if each is not None and _leads_to(each, attention.scores)), None)
    return None


def _leads_to(node: ir.Node, source: ir.Node) -> bool:
    return node is source or source in sources(node.outputs[0])


@_rule("clipped-attention")
def attention_is_not_clipped(found: Structure, target: Target) -> Found:
    for attention in found.attentions:
        if _split(attention)[1]:
            continue
        ends = (attention.softmax.outputs[0], attention.context.outputs[0])
        for clip in (node for end in ends for node in readers(end) if node.op_type == "Clip"):
            if any(use.node.op_type == "QuantizeLinear" for use in clip.outputs[0].uses()):
                yield _Place(
                    clip,
                    clip.outputs[0],
                    "a Clip between attention and QuantizeLinear: attention is not fused",
                    "clip the integers behind QuantizeLinear, or let the integer type saturate",
                )


def _split(attention: Attention) -> tuple[list[str], list[str]]:
    """The parts of an attention that are quantized, and those that are not."""
    done = [name for name, part in attention.parts.items() if part.dequantizer is not None]
    return done, [name for name in attention.parts if name not in done]


def _envelope(attention: Attention, target: Target) -> str | None:
    """Why no fused INT8 kernel is known for this attention; None where there is one."""
    size, tokens = attention.head_size, attention.tokens
    if target.attention is None:
        return None
    if size is None or tokens is None:
        return "head size and sequence length are not known from the file, so whether attention fuses is not either"
    return target.attention.broken_rule(size, tokens)


# --- placement and the rest of the graph ---


@_rule("precision", "warning", everywhere=True)
def floats_are_the_targets(found: Structure, target: Target) -> Found:
    other = _FLOATS["float16" if target.high_precision == "float32" else "float32"]
    wrong = [pair for pair in found.pairs if _scale_type(pair) in other]
    if wrong:
        kind = _scale_type(wrong[0]) or ir.DataType.UNDEFINED
        yield _at_pair(
            wrong[0],
            f"{_FLOAT_NAMES[kind]} around the integers at {len(wrong)} of {len(found.pairs)} quantized tensors: "
            + (
                "attention that is not quantized is not fused, and everything between integers moves twice the bytes"
                if target.high_precision == "float16"
                else "CPU kernels compute in FP32, and fewer products are fused"
            ),
            f"export with {target.high_precision} scales and parameters",
        )


@_rule("residual", "warning")
def residuals_stay_floats(found: Structure, target: Target) -> Found:
    for pair in filter(lambda pair: pair.is_activation, found.pairs):
        ends = pair.readers()
        if ends and all(node.op_type == "Add" and _adds_activations(node) for node in ends):
            yield _at_pair(
                pair,
                "only a residual Add reads this pair: it rounds the residual stream and saves no kernel",
                "remove QuantizeLinear and DequantizeLinear here",
            )


@_rule("round-trip", "warning")
def quantized_tensors_meet_integer_kernels(found: Structure, target: Target) -> Found:
    for pair in filter(lambda pair: pair.is_activation, found.pairs):
        ends = pair.readers()
        if ends and all(_computes_in_floats(node) for node in ends):
            yield _at_pair(
                pair,
                f"quantized and dequantized for {_listed(node.op_type for node in ends)} alone, computed in floating "
                "point: two passes over the tensor and a rounding for nothing",
                "remove QuantizeLinear and DequantizeLinear here",
            )


@_rule("tiny-product", "warning")
def tiny_products_stay_floats(found: Structure, target: Target) -> Found:
    for product in found.products:
        sizes = product.sizes
        if product.node.op_type == "Conv" or not product.is_integer or None in sizes:
            continue
        if min(size for size in sizes if size is not None) < target.least_product:
            yield _Place(
                product.node,
                product.operands[1].stored or product.operands[1].value,
                f"a quantized product with K = {sizes[0]} and N = {sizes[1]}: below {target.least_product} the integer "
                "kernel gains less than quantizing its input costs",
                "leave it in floating point",
            )


@_rule("moved-integers")
def integers_are_read_where_they_are_made(found: Structure, target: Target) -> Found:
    if found.opset < 21:
        return
    for pair in found.pairs:
        if not pair.is_activation or integer_type(pair.nodes[0]) is not ir.DataType.INT8:
            continue
        moves = [use.node for node in pair.dequantize for use in node.outputs[0].uses() if use.node.op_type in MOVES]
        for move in moves:
            if move.op_type in _CARRIED and not any(_is_quantized(output) for output in move.outputs):
                yield _Place(
                    move,
                    move.inputs[0],
                    f"{move.op_type} of a dequantized INT8 tensor at opset 21: ONNX Runtime refuses its own rewrite "
                    "(output_dtype INT8 does not match y_zero_point type UINT8)",
                    f"put the {move.op_type} before QuantizeLinear",
                )
            elif move.op_type in _NOT_CARRIED and any(node.op_type in PRODUCTS for node in readers(move.outputs[0])):
                yield _Place(
                    move,
                    move.inputs[0],
                    f"{move.op_type} between DequantizeLinear and a product, which therefore runs in floating point",
                    f"put the {move.op_type} before QuantizeLinear",
                )


@_rule("operator-format")
def operators_are_standard(found: Structure, target: Target) -> Found:
    for node in found.graph:
        if (
            node.op_type.startswith("QLinear")
            or node.op_type in _INTEGERS_IN_ONE_OPERATOR
            or "microsoft" in node.domain
        ):
            yield _Place(
                node,
                node.outputs[0],
                f"{node.op_type} is an operator of ONNX Runtime's kind: {target.name} reads integers only through "
                "QuantizeLinear and DequantizeLinear of standard ONNX",
                "quantize in QDQ format, statically (in quantize_static: QuantFormat.QDQ), at opset 21",
            )


@_rule("attention-operator", "note", everywhere=True)
def attention_is_spelt_out(found: Structure, target: Target) -> Found:
    for node in found.graph:
        if node.op_type in _ATTENTION_OPERATORS:
            yield _Place(node, node.outputs[0], f"{node.op_type} is one operator, what is inside is not judged", "")


@_rule("nothing-quantized", "note", everywhere=True)
def something_is_quantized(found: Structure, target: Target) -> Found:
    if not found.pairs:
        yield _Place(None, None, "the file has neither QuantizeLinear nor DequantizeLinear", "")


def _at_pair(pair: Pair, problem: str, remedy: str) -> _Place:
    return _Place(pair.nodes[0], pair.tensor, problem, remedy)


def _at_weight(product: Product, weight: Operand, problem: str, remedy: str) -> _Place:
    return _Place(product.node, weight.stored, problem, remedy)


def _adds_activations(add: ir.Node) -> bool:
    return all(value is not None and operand(value).is_activation for value in add.inputs)


def _computes_in_floats(node: ir.Node) -> bool:
    if node.op_type in PRODUCTS | QUANTIZERS:
        return False
    return node.op_type not in _INTEGER_IF_REQUANTIZED or not any(_is_quantized(value) for value in node.outputs)


def _is_quantized(value: ir.Value) -> bool:
    return any(use.node.op_type == "QuantizeLinear" for use in value.uses())


def _listed(names: Iterator[str] | list[str]) -> str:
    return ", ".join(sorted(set(names)))


def _and(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
