from __future__ import annotations

from pathlib import Path

from fixtures.bare_onnx import write_bare

from fimaq_deploy.graph_calibration.intake import read_network
from fimaq_deploy.graph_calibration.observed import BATCH, observe_shapes


def test_sides_that_follow_the_batch_are_told_from_those_that_do_not(tmp_path: Path) -> None:
    network = read_network(write_bare(tmp_path / "own.onnx"))
    for node in network.graph:
        for value in node.outputs:
            value.shape = None
    observe_shapes(network.model, network.shape)
    shapes = {str(node.name): [str(size) for size in node.outputs[0].shape] for node in network.graph}
    assert shapes["block.0.attn/MatMul"] == [BATCH, "2", "16", "16"]
    assert shapes["Gather"] == [BATCH, "32"]
    assert all(shape[0] == BATCH for shape in shapes.values())
