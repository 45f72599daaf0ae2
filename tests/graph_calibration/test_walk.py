from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fimaq_deploy import Recipe
from fimaq_deploy.data.intake import as_source
from fimaq_deploy.graph_calibration.intake import read_network
from fimaq_deploy.graph_calibration.quantization import quantize_network
from fimaq_deploy.graph_calibration.segments import Running


def _cosine(path: Path, images: np.ndarray, **reconstruction: int) -> float:
    recipe = Recipe.load("w4a4").replace(reconstruction=reconstruction)
    made = quantize_network(read_network(path), as_source(images), recipe, "onnxruntime-cpu")
    found = []
    for model in (made.model, made.original):
        with Running(model) as running:
            found += running.piece("images", ["scores"])(images, images)
    return float((found[0] * found[1]).sum() / np.linalg.norm(found[0]) / np.linalg.norm(found[1]))


@pytest.mark.slow
def test_rounding_by_output_error_beats_the_nearest(bare_onnx: Path) -> None:
    images = np.random.default_rng(2).normal(size=(96, 3, 16, 16)).astype(np.float32)
    learned, nearest = (_cosine(bare_onnx, images, iterations=count) for count in (1, 0))
    assert learned > nearest and learned > 0.98


@pytest.mark.parametrize("recipe", ["w8a8", "w4a16"])
def test_one_tensor_that_three_layers_read_is_searched_once(recipe: str, bare_onnx: Path, bare_images) -> None:
    made = quantize_network(read_network(bare_onnx), as_source(bare_images), Recipe.load(recipe), "onnxruntime-cpu")
    sites = {site.name: len(site.readers) for site in made.found.sites if site.weighted}
    shared = {"block.0.attn.q.input_quantizer": 3} if recipe == "w8a8" else {}
    assert {name: count for name, count in sites.items() if count > 1} == shared
