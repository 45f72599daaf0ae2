from __future__ import annotations

from pathlib import Path

import numpy as np

from fimaq_deploy.graph_calibration.float_range import largest_values
from fimaq_deploy.graph_calibration.intake import read_network
from fimaq_deploy.graph_calibration.segments import Running


def test_the_largest_value_is_that_of_every_operator(bare_onnx: Path, bare_images: np.ndarray) -> None:
    model = read_network(bare_onnx).model
    peak = largest_values(model, [bare_images])
    names = [str(node.outputs[0].name) for node in model.graph]
    with Running(model) as running:
        arrays = running.piece("images", names)(bare_images, bare_images)
    largest = max(float(np.abs(array).max()) for array in arrays if array.dtype == np.float32)
    assert np.isclose(peak.value, largest) and peak.operator in {str(node.name) for node in model.graph}
