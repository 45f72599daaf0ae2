"""What surrounds every pass: it says what it did, and a promise that is broken does not pass."""

from __future__ import annotations

import onnx_ir as ir
import pytest

from fimaq_deploy.export.passes.rewrite import Rewrite, require, whole

TWO = "g (float[n, 4] x) => (float[n, 4] y) { a = Relu (x) y = Neg (a) }"


def relu_to(kind: str) -> Rewrite:
    def rewrite(graph: ir.Graph, node: ir.Node) -> None:
        node.op_type = kind

    return Rewrite("change_relu", "Relu", lambda node: None, rewrite)


def test_a_rewrite_that_leaves_what_it_was_for_is_our_bug(draw) -> None:
    with pytest.raises(RuntimeError, match="change_relu broke its promise: left as they were"):
        relu_to("Relu")(draw(TWO))
    assert relu_to("Abs")(draw(TWO)) is True


def test_operators_of_other_domains_are_not_the_standards(draw) -> None:
    model = draw(TWO)
    model.graph[0].domain = "com.example"
    assert relu_to("Abs")(model) is False and model.graph[0].op_type == "Relu"


def test_an_obstacle_is_told_by_the_node_where_it_is(draw) -> None:
    rewrite = Rewrite("never", "Relu", lambda node: "it is needed", lambda graph, node: None)
    model = draw(TWO)
    assert rewrite(model) is False
    assert rewrite.obstacles(model) == {"Relu_0": "it is needed"}


def test_obstacles_are_logged_for_whoever_asks(draw, caplog) -> None:
    with caplog.at_level("DEBUG", "fimaq_deploy"):
        Rewrite("never", "Relu", lambda node: "it is needed", lambda graph, node: None)(draw(TWO))
    assert "never: not at Relu_0: it is needed" in caplog.text


def rename(model: ir.Model) -> bool:
    model.graph.outputs[0].name = "z"
    return True


def swap(model: ir.Model) -> bool:
    first, second = model.graph
    model.graph.remove(first)
    model.graph.insert_after(second, first)
    return True


def forget_a_name(model: ir.Model) -> bool:
    model.graph[0].outputs[0].name = None
    return True


def take_the_axis(model: ir.Model) -> bool:
    model.graph.outputs[0].shape = ir.Shape([4])
    return True


def promise_too_much(model: ir.Model) -> bool:
    require(len(model.graph) == 3, "there are not three nodes")
    return False


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (rename, "inputs and outputs were"),
        (take_the_axis, "inputs and outputs were"),
        (swap, "reads a, which nothing before it makes"),
        (forget_a_name, "has no name"),
        (promise_too_much, "there are not three nodes"),
    ],
)
def test_a_graph_that_cannot_run_or_looks_otherwise_from_outside_is_our_bug(draw, edit, said) -> None:
    with pytest.raises(RuntimeError, match=f"the pass {edit.__name__} broke its promise: .*{said}"):
        whole(edit)(draw(TWO))
