"""One form for what exporters write in several: products with stored weights, and the operands of attention.

    Gemm(x, W, b)                  = x · W' + b, with alpha, beta and the transposes in the stored numbers
    (a q) · (b k)ᵀ                 = a b (q kᵀ)
    reshape(transpose(reshape(k))) = transpose(k), as torch's exporter writes scaled dot product attention

So weights are matrices [in, out] that nothing else reads, and q, k and v are what a quantizer should see: behind their
scale there would be another tensor to quantize, and runtimes fuse attention where integers reach the products.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from fimaq_deploy.graph.attention import attention_of
from fimaq_deploy.graph.edit import (
    bypass,
    is_operator,
    maker,
    nodes_of,
    numpy_of,
    optional_at,
    rank,
    read_at,
    replace,
    stored,
    typed,
)
from fimaq_deploy.graph.values import dimension


def plain_products(graph: ir.Graph) -> None:
    """Rewrite what is written in another way. Types and shapes must be known as far as they can be."""
    for node in nodes_of(graph, "Where"):
        _drop_open_mask(node)
    for node in nodes_of(graph, "Gemm"):
        _as_matmul(graph, node)
    for node in nodes_of(graph, "MatMul"):
        _own_weights(graph, node)
    for softmax in nodes_of(graph, "Softmax"):
        found = attention_of(softmax)
        if found is not None and is_operator(found.scores, "MatMul"):
            _drop_nan_guard(softmax, found.scores)
            _scale_scores(graph, found.scores)
            _transpose_once(graph, found.scores)
            _swap_last(graph, found.scores)


def _as_matmul(graph: ir.Graph, gemm: ir.Node) -> None:
    weights, bias = numpy_of(gemm.inputs[1]), optional_at(gemm, 2)
    if weights is None or bool(gemm.attributes.get_int("transA", 0)) or (bias is not None and numpy_of(bias) is None):
        return
    matrix = weights.T if gemm.attributes.get_int("transB", 0) else weights
    matrix = np.ascontiguousarray(matrix * np.float32(gemm.attributes.get_float("alpha", 1.0)), dtype=np.float32)
    name = str(read_at(gemm, 1).name)
    product = ir.node("MatMul", [read_at(gemm, 0), stored(graph, f"{name}.matrix", matrix)])
    out = gemm.outputs[0]
    result = typed(product.outputs[0], out.dtype, out.shape)
    product.name, nodes = str(gemm.name).replace("Gemm", "MatMul"), [product]
    added = numpy_of(bias)
    if added is not None:
        scaled = (added * np.float32(gemm.attributes.get_float("beta", 1.0))).astype(np.float32)
        scaled = scaled.reshape(-1) if scaled.size == matrix.shape[1] else scaled
        add = ir.node("Add", [result, stored(graph, f"{read_at(gemm, 2).name}.of.{name}", scaled)])
        add.name = f"{str(product.name).rpartition('/')[0]}/Add".lstrip("/") + f"_{len(graph)}"
        result.name = f"{product.name}:product"
        result = typed(add.outputs[0], out.dtype, out.shape)
        nodes.append(add)
    graph.insert_before(gemm, nodes)
    replace(out, result)
    graph.remove(gemm, safe=True)


def _own_weights(graph: ir.Graph, product: ir.Node) -> None:
    """A matrix that several products read becomes one for each: each is quantized for its own inputs."""
    weights = optional_at(product, 1)
    array = numpy_of(weights)
    if weights is not None and array is not None and len(weights.uses()) > 1:
        product.replace_input_with(1, stored(graph, f"{weights.name}.of.{product.name}", array))


def _drop_open_mask(where: ir.Node) -> None:
    """A mask that hides nothing, whatever the batch: stored truths choose 0, which is added."""
    at = read_at(where, 0)
    while (node := at.producer()) is not None and is_operator(node, "Expand", "Identity", "Reshape", "Unsqueeze"):
        at = read_at(node, 0)
    condition, added = numpy_of(at), numpy_of(optional_at(where, 1))
    if condition is None or not condition.all() or added is None or added.any():
        return
    for user, index in list(where.outputs[0].uses()):
        other = user.inputs[1 - index] if is_operator(user, "Add") else None
        if other is not None and rank(other) == rank(user.outputs[0]) and not user.outputs[0].is_graph_output():
            bypass_to(user, other)


def _drop_nan_guard(softmax: ir.Node, scores: ir.Node) -> None:
    """Where(IsNaN(p), 0, p) behind a softmax without a mask: torch's exporter guards rows that a mask hides."""
    at = read_at(softmax, 0)
    while (node := at.producer()) is not None and node is not scores:
        if _number(node) is None:
            return
        at = _other(node)
    weights = softmax.outputs[0]
    for use in list(weights.uses()):
        guard = use.node
        nan = maker(optional_at(guard, 0), "IsNaN") if is_operator(guard, "Where") else None
        if nan is not None and use.idx == 2 and nan.inputs[0] is weights:
            bypass_to(guard, weights)


def _scale_scores(graph: ir.Graph, scores: ir.Node) -> None:
    """Take numbers that multiply q or k, and multiply their product with them."""
    factor = 1.0
    for place in (0, 1):
        at = read_at(scores, place)
        while (node := at.producer()) is not None and len(at.uses()) == 1:
            number = _number(node)
            if number is not None:
                factor *= number
                before = _other(node)
                bypass_to(node, before)
                at = before
            elif is_operator(node, "Reshape", "Transpose", "Squeeze", "Unsqueeze"):
                at = read_at(node, 0)
            else:
                break
    if factor == 1.0:
        return
    out = scores.outputs[0]
    scaled = ir.node("Mul", [out, stored(graph, f"{scores.name}.scale", np.array(factor, np.float32))])
    scaled.name = f"{scores.name}_scale"
    value = typed(scaled.outputs[0], out.dtype, out.shape)
    value.name = f"{scaled.name}:0"
    graph.insert_after(scores, scaled)
    for user, index in list(out.uses()):
        if user is not scaled:
            user.replace_input_with(index, value)


def _number(node: ir.Node) -> float | None:
    """What a node multiplies by, where that is one stored number."""
    if not is_operator(node, "Mul", "Div"):
        return None
    places = (1,) if node.op_type == "Div" else (0, 1)
    for place in places:
        array = numpy_of(node.inputs[place])
        if array is not None and array.size == 1 and array.ndim < 2:
            number = float(array.reshape(-1)[0])
            return 1 / number if node.op_type == "Div" else number
    return None


def _other(node: ir.Node) -> ir.Value:
    """What a node multiplies."""
    return next(value for value in node.inputs if value is not None and numpy_of(value) is None)


def bypass_to(node: ir.Node, value: ir.Value) -> None:
    """Remove a node whose result is one of its inputs from here on."""
    if node.inputs[0] is value:
        bypass(node)
        return
    assert node.graph is not None
    ir.convenience.replace_all_uses_with(node.outputs[0], value)
    node.graph.remove(node, safe=True)


def _swap_last(graph: ir.Graph, scores: ir.Node) -> None:
    """Split what moves k's heads and transposes k at once: heads first, then keys as columns."""
    node = maker(scores.inputs[1], "Transpose")
    order = [] if node is None else list(node.attributes.get_ints("perm", []))
    if node is None or len(order) < 3 or len(node.outputs[0].uses()) > 1:
        return
    first = [*order[:-2], order[-1], order[-2]]
    if first == sorted(first):
        return
    x, out = read_at(node, 0), node.outputs[0]
    moved = ir.node("Transpose", [x], attributes={"perm": first}, name=f"{node.name}_heads")
    sizes = tuple(x.shape or ())
    typed(moved.outputs[0], x.dtype, ir.Shape([sizes[axis] for axis in first]) if sizes else None)
    moved.outputs[0].name = f"{moved.name}:0"
    graph.insert_before(node, moved)
    node.replace_input_with(0, moved.outputs[0])
    rest = list(range(len(order)))
    node.attributes["perm"] = ir.AttrInt64s("perm", [*rest[:-2], rest[-1], rest[-2]])
    assert out.producer() is node


def _transpose_once(graph: ir.Graph, scores: ir.Node) -> None:
    last = maker(scores.inputs[1], "Reshape")
    middle = maker(last.inputs[0], "Transpose") if last is not None else None
    first = maker(middle.inputs[0], "Reshape") if middle is not None else None
    if last is None or middle is None or first is None:
        return
    k, out = read_at(first, 0), last.outputs[0]
    if rank(k) != 4 or list(middle.attributes.get_ints("perm", [])) != [0, 2, 1]:
        return
    if rank(out) == 4 and (dimension(k, -1) != dimension(out, -2) or dimension(k, -2) != dimension(out, -1)):
        return
    if rank(out) not in (4, None):
        return
    transpose = ir.node("Transpose", [k], attributes={"perm": [0, 1, 3, 2]})
    transpose.name = str(middle.name)
    sizes = tuple(k.shape or ())
    value = typed(transpose.outputs[0], k.dtype, ir.Shape([sizes[0], sizes[1], sizes[3], sizes[2]]))
    graph.insert_before(first, transpose)
    replace(out, value)
    for node in (last, middle, first):
        graph.remove(node, safe=True)
