from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fimaq_deploy.errors import UserError
from fimaq_deploy.graph_calibration.given import Given
from fimaq_deploy.graph_calibration.intake import read_network
from fimaq_deploy.graph_calibration.proof import require_same


def test_a_clean_graph_is_shown_to_compute_the_same(bare_onnx: Path, bare_images: np.ndarray) -> None:
    network = read_network(bare_onnx)
    assert require_same(network, Given(network), bare_images[:3]) < 1e-5


def test_a_graph_that_computes_something_else_is_refused(bare_onnx: Path, bare_images: np.ndarray) -> None:
    network = read_network(bare_onnx)
    given = Given(network)
    bias = next(value for name, value in network.graph.initializers.items() if name.startswith("head.bias"))
    bias.const_value = type(bias.const_value)(bias.const_value.numpy() + 1, name=bias.name)
    with pytest.raises(UserError, match=r"cannot be rewritten for quantization.*outputs differ"):
        require_same(network, given, bare_images[:3])


def test_answers_that_are_not_finite_are_refused(bare_onnx: Path, bare_images: np.ndarray) -> None:
    network = read_network(bare_onnx)
    with pytest.raises(UserError, match="answers NaN or infinity"):
        require_same(network, Given(network), bare_images[:2] * np.inf)
