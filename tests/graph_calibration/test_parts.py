from __future__ import annotations

from pathlib import Path

import pytest
from fixtures.bare_onnx import TOKENS, write_bare

from fimaq_deploy.graph_calibration.intake import read_network
from fimaq_deploy.graph_calibration.parts import Parts, find_parts


@pytest.fixture(scope="module")
def parts(bare_onnx: Path) -> Parts:
    return find_parts(read_network(bare_onnx).graph)


def test_layers_are_found_by_their_modules_with_their_places(parts: Parts) -> None:
    found = {layer.name: (layer.facts.inputs, layer.facts.outputs, layer.facts.position) for layer in parts.layers}
    assert found == {
        "patch": (48, 32, "patch_embed"),
        "block.0.attn.q": (32, 32, None),
        "block.0.attn.k": (32, 32, None),
        "block.0.attn.v": (32, 32, None),
        "block.0.attn.proj": (32, 32, None),
        "block.0.mlp.fc1": (32, 64, None),
        "block.0.mlp.fc2": (64, 32, None),
        "head": (32, 20, "head"),
    }
    assert not parts.others
    assert parts.layers[0].kernel == (4, 4) and parts.layers[1].bias == "block.0.attn.q/Add"


def test_attention_is_found_with_its_four_operands(parts: Parts) -> None:
    (heads,) = parts.heads
    assert (heads.name, heads.facts.size, heads.facts.tokens) == ("block.0.attn", 16, TOKENS)
    assert set(heads.reads) == {"q", "k", "v", "softmax"}
    assert heads.reads["softmax"] == ("block.0.attn/Softmax:0", ("block.0.attn/MatMul_1", 0))


def test_a_convolution_whose_windows_overlap_stays_as_it_is(tmp_path: Path) -> None:
    def overlap(model) -> None:
        conv = model.graph.node[0]
        del conv.attribute[:]
        conv.attribute.add(name="strides", ints=[4, 4], type=7)
        conv.attribute.add(name="pads", ints=[0, 0, 3, 3], type=7)
        model.graph.node[0].CopyFrom(conv)

    found = find_parts(read_network(write_bare(tmp_path / "own.onnx", change=overlap)).graph)
    assert "windows overlap" in found.others["patch"]
