from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir

from fimaq_deploy.graph.attention import attention_of
from fimaq_deploy.graph.edit import maker, nodes_of, numpy_of
from fimaq_deploy.graph_calibration.intake import read_network


def _attention(graph: ir.Graph):
    (softmax,) = nodes_of(graph, "Softmax")
    found = attention_of(softmax)
    assert found is not None
    return found


def test_the_scale_of_q_and_k_is_put_on_their_product(bare_onnx: Path) -> None:
    graph = read_network(bare_onnx).graph
    found = _attention(graph)
    scaled = maker(found.softmax.inputs[0], "Mul")
    assert scaled is not None and scaled.inputs[0] is found.scores.outputs[0]
    assert np.isclose(numpy_of(scaled.inputs[1]), 1 / 4)  # head size 16
    assert found.head_size == 16 and found.tokens == 16


def test_k_is_transposed_last_before_its_product(bare_onnx: Path) -> None:
    found = _attention(read_network(bare_onnx).graph)
    swap = maker(found.scores.inputs[1], "Transpose")
    assert swap is not None and list(swap.attributes.get_ints("perm")) == [0, 1, 3, 2]


def test_a_gemm_becomes_a_product_of_its_own_matrix(bare_onnx: Path) -> None:
    graph = read_network(bare_onnx).graph
    product = next(node for node in graph if str(node.name).startswith("head"))
    assert product.op_type == "MatMul" and numpy_of(product.inputs[1]).shape == (32, 20)
    assert len(product.inputs[1].uses()) == 1
