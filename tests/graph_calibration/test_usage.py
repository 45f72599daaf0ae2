from __future__ import annotations

from pathlib import Path

import numpy as np

from fimaq_deploy import Recipe
from fimaq_deploy.data.intake import as_source
from fimaq_deploy.graph_calibration.intake import read_network
from fimaq_deploy.graph_calibration.quantization import quantize_network
from fimaq_deploy.graph_calibration.usage import clipped_shares, grid_use


def test_images_with_more_contrast_are_clipped_more_than_those_of_the_calibration(bare_onnx: Path, bare_images) -> None:
    recipe = Recipe.load("w4a8").replace(reconstruction={"iterations": 0})
    made = quantize_network(read_network(bare_onnx), as_source(bare_images), recipe, "tensorrt-rtx")
    uses = {(use.kind, use.name): use for use in grid_use(made, [bare_images])}
    weights = uses["weight", "block.0.mlp.fc1"]
    assert weights.bits == 4 and weights.levels == 16 and weights.used_levels > 8
    own, other = (clipped_shares(made, [bare_images * times]) for times in (np.float32(1), np.float32(3)))
    assert own["patch"] == uses["activation", "patch"].clipped < 1
    assert other["patch"] > own["patch"] + 1
    assert {"block.0.attn.q", "block.0.attn.softmax"} <= set(own)
