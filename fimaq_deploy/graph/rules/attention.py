"""Rules for attention: what lets q·kᵀ, softmax and the product with v become one kernel."""

from __future__ import annotations

import onnx_ir as ir

from fimaq_deploy.graph.attention import Attention, sources
from fimaq_deploy.graph.products import Product
from fimaq_deploy.graph.rules.rule import Found, Place, rule
from fimaq_deploy.graph.structure import Structure
from fimaq_deploy.graph.values import integer_type, producer, readers, stored_tensor
from fimaq_deploy.target import Target


@rule("half-attention")
def attention_is_quantized_whole_or_not(found: Structure, target: Target) -> Found:
    for attention in found.attentions:
        done, missing = _split(attention)
        if done and missing:
            fits = _envelope(attention, target) is None
            yield Place(
                attention.softmax,
                attention.weights.value,
                f"{_and(done)} quantized but not {_and(missing)}: attention is not fused and runs as single kernels",
                f"quantize {_and(missing)} too" if fits else f"remove the quantizers of {_and(done)}",
            )


@rule("attention-envelope")
def quantized_attention_fits_a_kernel(found: Structure, target: Target) -> Found:
    for attention in found.attentions:
        problem = _envelope(attention, target)
        if problem is None or _split(attention)[1]:
            continue
        unknown = None in (attention.head_size, attention.tokens)
        yield Place(
            attention.softmax,
            attention.weights.value,
            problem if unknown else f"{problem}: quantized attention of this shape is not fused",
            "store shapes in the file" if unknown else "leave q, k, v and the softmax output unquantized",
            "note" if unknown else None,
        )


@rule("qkv-output")
def fused_qkv_results_are_quantized(found: Structure, target: Target) -> Found:
    for attention in found.attentions:
        done, _ = _split(attention)
        common = set.intersection(*(sources(each.value) for each in (attention.q, attention.k, attention.v)))
        qkv = next((product for product in found.products if product.node in common), None)
        if qkv is None or done or not qkv.is_integer or _is_guarded(qkv):
            continue
        fits = _envelope(attention, target) is None
        yield Place(
            qkv.node,
            qkv.node.outputs[0],
            "one product computes q, k and v in integers but its result is not quantized: its weights are "
            "dequantized at run time and it runs in floating point",
            "quantize its result and the softmax output"
            if fits
            else "split it into three products, for q, k and v, or put a Clip at the float type's limits behind it",
        )


def _is_guarded(product: Product) -> bool:
    """Whether a Clip stands between a product with its bias and whoever splits it; see `export.fusion`."""
    direct = list(readers(product.node.outputs[0]))
    behind = [node for bias in direct if bias.op_type == "Add" for node in readers(bias.outputs[0])]
    return any(node.op_type == "Clip" for node in (*direct, *behind))


@rule("quantized-scores")
def scores_stay_floats(found: Structure, target: Target) -> Found:
    for attention in found.attentions:
        between = _quantizer_of_scores(attention)
        if between is not None:
            yield Place(
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


@rule("clipped-attention")
def attention_is_not_clipped(found: Structure, target: Target) -> Found:
    for attention in found.attentions:
        if _split(attention)[1]:
            continue
        ends = (attention.softmax.outputs[0], attention.context.outputs[0])
        for clip in (node for end in ends for node in readers(end) if node.op_type == "Clip"):
            if any(reader.op_type == "QuantizeLinear" for reader in readers(clip.outputs[0])):
                yield Place(
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
    """Why no fused kernel of 8 bits is known for this attention; None where there is one."""
    size, tokens = attention.head_size, attention.tokens
    kernel = target.kernel("fp8" if _is_in_floats(attention) else "int", "attention")
    kernel = kernel or target.kernel("int", "attention")
    if kernel is None:
        return f"target {target.name} has no kernel for quantized attention"
    if kernel.format != "int":
        return None if tokens is None else kernel.broken_rule(size, tokens)
    if kernel.shapes.head_sizes is None and kernel.shapes.most_tokens is None:
        return None
    if size is None or tokens is None:
        return "head size and sequence length are not known from the file, so whether attention fuses is not either"
    return kernel.broken_rule(size, tokens)


def _is_in_floats(attention: Attention) -> bool:
    """Whether what is quantized of it is in 8-bit floats."""
    found = (part.dequantizer for part in attention.parts.values())
    kinds = {integer_type(node) for node in found if node is not None}
    return kinds == {ir.DataType.FLOAT8E4M3FN}


def _and(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
