from __future__ import annotations

import onnx_ir as ir

from fimaq_deploy.graph_calibration.names import module_of, name_by_module


def _named(*names: str) -> list[str]:
    x = ir.Value(name="x", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape([1]))
    nodes = []
    for name in names:
        node = ir.node("Relu", [nodes[-1].outputs[0] if nodes else x], name=name)
        nodes.append(node)
    model = ir.Model(ir.Graph([x], nodes[-1].outputs, nodes=nodes, opset_imports={"": 21}), ir_version=10)
    name_by_module(model)
    return [str(node.name) for node in model.graph]


def test_lists_that_an_exporter_names_twice_are_named_once() -> None:
    assert _named("/blocks/blocks.0/attn/qkv/MatMul", "/Add", "/layers.1/mlp/Relu") == [
        "blocks.0.attn.qkv/MatMul",
        "Add",
        "layers.1.mlp/Relu",
    ]


def test_no_two_nodes_are_named_alike() -> None:
    names = _named("a", "a", "a_1", "")
    assert len(set(names)) == 4 and names[0] == "a"


def test_the_module_of_a_node_is_what_stands_before_its_operator() -> None:
    assert module_of(ir.node("Relu", [], name="blocks.0/Relu")) == "blocks.0"
    assert module_of(ir.node("Relu", [], name="alone")) == "alone"
