from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from onnx.reference import ReferenceEvaluator

from fimaq_deploy.graph_calibration.intake import read_network
from fimaq_deploy.graph_calibration.values import depending_on, single_values, split_stored


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


@pytest.mark.parametrize(("given", "attributes"), [(", sizes", "axis = 0"), ("", "axis = 0, num_outputs = 2")])
def test_pieces_of_stored_tensors_are_stored_tensors(draw: Any, given: str, attributes: str) -> None:
    text = f"""g (float[n, 2] x) => (float[n, 2] y)
    <float[3, 2] w = {{1.0, 2.0, 3.0, 4.0, 5.0, 6.0}}, int64[2] sizes = {{2, 1}}> {{
        square, row = Split <{attributes}> (w{given})
        m = MatMul (x, square)
        y = Add (m, row)
    }}"""
    model, x = draw(text), np.random.default_rng(0).normal(size=(3, 2)).astype(np.float32)
    wanted = ReferenceEvaluator(ir.serde.serialize_model(model)).run(None, {"x": x})[0]
    assert split_stored(model.graph) and [node.op_type for node in model.graph] == ["MatMul", "Add"]
    np.testing.assert_array_equal(ReferenceEvaluator(ir.serde.serialize_model(model)).run(None, {"x": x})[0], wanted)
    assert not split_stored(model.graph)


def test_pieces_of_what_is_computed_stay(draw: Any) -> None:
    model = draw("g (float[4, 2] x) => (float[2, 2] y) { a, b = Split <axis = 0, num_outputs = 2> (x) y = Add (a, b) }")
    assert not split_stored(model.graph) and [node.op_type for node in model.graph] == ["Split", "Add"]
