from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from fixtures.bare_onnx import WIDTH, write_bare
from onnx import helper, numpy_helper

from fimaq_deploy.engines.onnxruntime import open_session
from fimaq_deploy.errors import UserError
from fimaq_deploy.graph.saving import write_model
from fimaq_deploy.graph_calibration.given import Given
from fimaq_deploy.graph_calibration.intake import read_network


def _with_class_token(model: onnx.ModelProto) -> None:
    """A stored token of every image, as it is after an exporter folded its expansion."""
    graph = model.graph
    norm = next(node for node in graph.node if node.name == "norm/LayerNormalization")
    token = np.ones((2, 1, WIDTH), np.float32)
    graph.initializer.append(numpy_helper.from_array(token, "token"))
    joined = helper.make_node("Concat", ["token", norm.input[0]], ["longer"], "join", axis=1)
    graph.node.insert(list(graph.node).index(norm), joined)
    norm.input[0] = "longer"


def test_stored_rows_of_a_batch_are_expanded_to_any(bare_images: np.ndarray, tmp_path: Path) -> None:
    network = read_network(write_bare(tmp_path / "own.onnx", batch=2, change=_with_class_token))
    write_model(network.model, tmp_path / "clean.onnx")
    (found,) = open_session(tmp_path / "clean.onnx").run(None, {"images": bare_images[:5]})
    assert np.abs(found - Given(network)(bare_images[:5])["scores"]).max() < 1e-5


def test_a_batch_that_is_elsewhere_is_refused(tmp_path: Path) -> None:
    def elsewhere(model: onnx.ModelProto) -> None:
        flat = next(one for one in model.graph.initializer if one.name == "joined")
        flat.CopyFrom(numpy_helper.from_array(np.array([1, 32, WIDTH], np.int64), "joined"))

    with pytest.raises(UserError, match="is for batches of 2"):
        read_network(write_bare(tmp_path / "own.onnx", batch=2, change=elsewhere))
