"""Every preset on the shipped models of both kinds."""

from __future__ import annotations

import pytest

from fimaq_deploy import Recipe, load_model, quantize
from fimaq_deploy.data.bundled import bundled_images

TARGETS = ("onnxruntime-cpu", "tensorrt-rtx")


@pytest.mark.parametrize("name", Recipe.presets())
@pytest.mark.parametrize("model", ["vit_shapes", "swin_shapes"])
def test_every_preset_fits_every_family(model: str, name: str) -> None:
    recipe = Recipe.load(name).replace(
        scale_search={"images": 8, "candidates": 4},
        reconstruction={"images": 8, "iterations": 0},
        tuning={"iterations": 0},
    )
    images = bundled_images("shapes", "calibration", 8)
    targets = TARGETS if recipe.format == "int" and recipe.attention.format == "auto" else "tensorrt-rtx"
    quantized = quantize(load_model(model), images, recipe, targets)
    assert quantized(images.take(2)).isfinite().all()
