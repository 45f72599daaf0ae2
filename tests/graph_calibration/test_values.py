from __future__ import annotations

from pathlib import Path

from fimaq_deploy.graph_calibration.intake import read_network
from fimaq_deploy.graph_calibration.values import depending_on, single_values


def test_the_residual_stream_alone_is_alive_between_halves_of_a_block(bare_onnx: Path) -> None:
    graph = read_network(bare_onnx).graph
    names = [str(node.name) for node in graph]
    single = {names[place]: str(value.name) for place, value in enumerate(single_values(graph)) if value is not None}
    assert single["block.0.norm1/LayerNormalization"] == "patch/Transpose:0"
    assert single["block.0.norm2/LayerNormalization"] == "block.0/Add:0"
    assert single["norm/LayerNormalization"] == "block.0/Add_1:0"
    assert "block.0.attn.q/MatMul" not in single and "block.0/Add" not in single


def test_what_does_not_read_images_does_not_depend_on_them(bare_onnx: Path) -> None:
    graph = read_network(bare_onnx).graph
    made = depending_on(graph, graph.inputs)
    assert graph.outputs[0] in made
    assert not made.intersection(graph.initializers.values())
