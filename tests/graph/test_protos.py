"""The protobuf of a model is read with every graph inside it, however broken it is."""

from __future__ import annotations

import onnx
from onnx import helper, parser

from fimaq_deploy.graph import protos

# A branch that reads `x` and `stored` from outside and `inner` of its own.
NESTED = """<ir_version: 10, opset_import: ["" : 21, "own" : 3]>
g (float[2] x, bool c) => (float[2] y) <float[2] stored = {1, 2}> {
    [choice] y = If (c) <
        then_branch = t () => (float[2] a) { inner = Add (x, stored) a = Relu (inner) },
        else_branch = e () => (float[2] x) { }
    >
    z = Constant <value = float {3.0}> ()
}
<domain: "own", opset_import: ["" : 18]> twice (v) => (w) { w = Add (v, v) }"""


def nested() -> onnx.ModelProto:
    return parser.parse_model(NESTED)


def test_a_node_without_a_name_says_what_it_computes() -> None:
    named, unnamed = nested().graph.node
    assert (protos.label(named), protos.label(unnamed)) == ("choice", "Constant z")
    assert protos.label(helper.make_node("Relu", ["x"], [])) == "Relu"
    assert protos.label(helper.make_node("Split", ["x"], ["a", "b"])) == "Split a, b"


def test_graphs_inside_a_node_are_its_branches() -> None:
    choice, constant = nested().graph.node
    assert {graph.name for graph in protos.attribute_graphs(choice)} == {"t", "e"}
    assert list(protos.attribute_graphs(constant)) == []


def test_every_graph_is_visited_with_the_opsets_it_is_of() -> None:
    found = [
        ([node.op_type for node in nodes], {opset.domain: opset.version for opset in opsets})
        for nodes, opsets in protos.every_graph(nested())
    ]
    whole = {"": 21, "own": 3}
    expected = [(["If", "Constant"], whole), (["Add", "Relu"], whole), ([], whole), (["Add"], {"": 18})]
    assert sorted(found, key=str) == sorted(expected, key=str)


def test_nodes_that_are_visited_may_be_changed() -> None:
    model = nested()
    for nodes, _ in protos.every_graph(model):
        del nodes[:]
    assert len(model.graph.node) == len(model.functions[0].node) == 0


def test_names_of_a_graph_are_what_it_is_given_stores_or_computes() -> None:
    graph = nested().graph
    graph.sparse_initializer.add().values.name = "sparse"
    graph.node[1].output.append("")  # an output that nobody wants
    assert protos.defined_names(graph) == {"x", "c", "stored", "sparse", "y", "z"}


def test_a_node_reads_what_its_branches_read_from_outside() -> None:
    assert protos.names_read(nested().graph.node[0]) == {"c", "x", "stored"}
    assert protos.names_read(helper.make_node("Clip", ["x", "", "high"], ["y"])) == {"x", "high"}


def test_tensors_are_found_in_graphs_attributes_and_branches() -> None:
    graph = nested().graph
    branch = next(protos.attribute_graphs(graph.node[0]))
    branch.initializer.add().name = "deep"
    graph.node[1].attribute.append(helper.make_attribute("many", [helper.make_tensor("listed", 1, [1], [0.0])]))
    sparse = graph.sparse_initializer.add()
    sparse.values.name, sparse.indices.name = "values", "indices"
    names = [tensor.name for tensor in protos.every_tensor(graph)]
    assert sorted(names) == ["", "deep", "indices", "listed", "stored", "values"]
    assert [tensor.name for tensor in protos.node_tensors(graph.node)] == ["deep", "", "listed"]


def test_text_that_is_no_utf_8_is_seen_wherever_it_stands() -> None:
    whole = nested()
    assert protos.is_text_whole(whole)
    for name in (b"choice", b"stored", b"inner", b"twice"):
        damaged = onnx.ModelProto()
        damaged.ParseFromString(whole.SerializeToString().replace(name, b"\xff" + name[1:]))
        assert not protos.is_text_whole(damaged), name


def test_raw_numbers_are_no_text() -> None:
    model = nested()
    model.graph.initializer.add(name="raw").raw_data = b"\xff\xfe"
    assert protos.is_text_whole(model)
