"""Names as in the model that was wrapped."""

from __future__ import annotations

import pytest

from fimaq_deploy.export.passes.names import name_nodes, name_tensors, without_wrappers

TEXT = """g (float[n, 2] x) => (float[n, 2] y)
<float[2] a = {1.0, 2.0}, float[2] b = {3.0, 4.0}> { c = Add (x, a) d = Relu (c) y = Add (d, b) }"""
SCOPES = "pkg.torch.onnx.name_scopes"


@pytest.mark.parametrize(
    ("name", "own"),
    [("model.blocks.0.q", "blocks.0.q"), ("model.model.q", "q"), ("model", ""), ("modelled.q", "modelled.q")],
)
def test_wrappers_are_no_part_of_a_name(name, own) -> None:
    assert without_wrappers(name) == own


def test_stored_tensors_lose_their_wrappers(draw) -> None:
    model = draw(TEXT)
    model.graph.initializers["a"].name = "model.blocks.0.a"
    assert name_tensors(model) and not name_tensors(model)
    assert set(model.graph.initializers) == {"blocks.0.a", "b"}


def test_two_tensors_of_one_name_are_our_bug(draw) -> None:
    model = draw(TEXT)
    model.graph.initializers["a"].name = "model.b"
    with pytest.raises(RuntimeError, match="two tensors would have one name"):
        name_tensors(model)


def test_nodes_are_named_after_their_modules_and_numbered(draw) -> None:
    model = draw(TEXT)
    first, _, third = model.graph
    first.metadata_props[SCOPES] = "['', 'model', 'model.blocks.0', 'add']"
    third.metadata_props[SCOPES] = "['', 'model.blocks.0', 'add_1']"
    assert name_nodes(model)
    assert [node.name for node in model.graph] == ["blocks.0/Add", "blocks.0/Relu", "blocks.0/Add_1"]


def test_a_graph_without_the_exporters_notes_keeps_its_names(draw) -> None:
    model = draw(TEXT)
    before = [node.name for node in model.graph]
    assert not name_nodes(model) and [node.name for node in model.graph] == before
