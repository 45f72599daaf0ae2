from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from fixtures.grids import check_grids

from fimaq_deploy import Recipe, UserError
from fimaq_deploy.data.intake import as_source
from fimaq_deploy.engines.onnxruntime import open_session
from fimaq_deploy.graph.rules import lint
from fimaq_deploy.graph_calibration.intake import read_network
from fimaq_deploy.graph_calibration.quantization import MORE_FROM_A_MODULE, QuantizedGraph, quantize_network

TARGETS = ["onnxruntime-cpu", "tensorrt-rtx"]


@pytest.fixture(scope="module")
def made(bare_onnx: Path, bare_images: np.ndarray) -> QuantizedGraph:
    return quantize_network(read_network(bare_onnx), as_source(bare_images), Recipe.load("w8a8"), TARGETS)


def test_every_product_is_quantized_with_attention_where_a_target_gains(made: QuantizedGraph) -> None:
    assert len(made.found.layers) == 8 and not made.plan.kept
    assert {"block.0.attn.quantizers.softmax", "block.0.attn.quantizers.k"} < {site.name for site in made.found.sites}


def test_files_of_every_target_lint_clean_and_compute_the_same(made: QuantizedGraph, bare_images, tmp_path) -> None:
    results = []
    for target in TARGETS:
        path = made.traced(None).write(tmp_path / f"{target}.onnx", target)
        assert not [one for one in lint(path, target) if one.severity == "error"]
        session = open_session(path, optimisations=False)
        results += session.run(None, {"images": bare_images})
    original = made.traced_original(None).write(tmp_path / "fp32.onnx")
    (wanted,) = open_session(original).run(None, {"images": bare_images})
    assert all(np.corrcoef(found.ravel(), wanted.ravel())[0, 1] > 0.999 for found in results)


def test_grids_are_the_targets(made: QuantizedGraph, tmp_path: Path) -> None:
    tensors = check_grids(made.traced(None).write(tmp_path / "model.onnx"))
    assert {one.dtype for one in tensors} == {"INT8"} and {one.zero_point for one in tensors} == {0}


@pytest.mark.slow
def test_the_recipe_decides_single_layers(bare_onnx: Path, bare_images: np.ndarray) -> None:
    recipe = Recipe.load("w8a8").with_settings(['layers={"*.mlp.fc1": {quantize: never}}'])
    made = quantize_network(read_network(bare_onnx), as_source(bare_images), recipe, "onnxruntime-cpu")
    assert made.plan.kept["block.0.mlp.fc1"] == "the recipe leaves it alone"
    assert made.plan.kept["block.0.attn"] == "floats are as fast for products of two activations"


def test_what_a_module_would_have_given_more_is_said(made: QuantizedGraph) -> None:
    assert MORE_FROM_A_MODULE in made.notes


def test_a_recipe_that_quantizes_nothing_is_refused(bare_onnx: Path, bare_images: np.ndarray) -> None:
    recipe = Recipe.load("w8a8").with_settings(['layers={"*": {quantize: never}}'])
    with pytest.raises(UserError, match="nothing of it is quantized"):
        quantize_network(read_network(bare_onnx), as_source(bare_images), recipe, "onnxruntime-cpu")
