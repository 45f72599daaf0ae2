from __future__ import annotations

from pathlib import Path

import numpy as np

from fimaq_deploy.calibration.quantizers.grid import ActivationGrid, IntegerRange
from fimaq_deploy.graph.edit import nodes_of, numpy_of
from fimaq_deploy.graph.products import pairs_of
from fimaq_deploy.graph_calibration.intake import read_network
from fimaq_deploy.graph_calibration.parts import find_parts
from fimaq_deploy.graph_calibration.placement import Integers, Scale, Site, quantize_graph


def test_a_tensor_is_quantized_once_for_all_who_read_it(bare_onnx: Path) -> None:
    graph = read_network(bare_onnx).graph
    readers = tuple((f"block.0.attn.{name}/MatMul", 0) for name in "qkv")
    site = Site("norm1", "block.0.norm1/LayerNormalization:0", readers, ActivationGrid(4, "asymmetric"))
    quantize_graph(graph, {site: Scale(0.5, IntegerRange(-7, 8))}, [])
    (pair,) = pairs_of(graph)
    assert [use.node.name for use in pair.dequantize[0].outputs[0].uses()] == [name for name, _ in readers]
    (clip,) = nodes_of(graph, "Clip")
    assert [float(numpy_of(clip.inputs[place])) for place in (1, 2)] == [-3.5, 4.0]


def test_weights_are_stored_as_integers_with_the_bias_in_floats(bare_onnx: Path) -> None:
    graph = read_network(bare_onnx).graph
    layer = next(one for one in find_parts(graph).layers if one.name == "block.0.mlp.fc1")
    integers = Integers(np.ones((32, 64), np.int8), np.full(64, 0.25, np.float32), np.arange(64, dtype=np.float32))
    quantize_graph(graph, {}, [(layer, integers)])
    product = next(node for node in graph if node.name == layer.node)
    dequantize = product.inputs[1].producer()
    assert dequantize.op_type == "DequantizeLinear" and dequantize.attributes.get_int("axis") == 1
    assert (numpy_of(dequantize.inputs[0]) == 1).all()
    add = next(node for node in graph if node.name == layer.bias)
    assert any(np.array_equal(numpy_of(value), np.arange(64)) for value in add.inputs if numpy_of(value) is not None)
