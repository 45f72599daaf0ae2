"""What a mix takes in the file is foretold from files of one format each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import fimaq_deploy as fd
from fimaq_deploy.calibration.mixing.options import mixed, options_of, uniform
from fimaq_deploy.export import export_onnx
from fimaq_deploy.pipeline.weighing import bits_of, file_bits, weigh
from fimaq_deploy.recipe import Recipe

UNLEARNED = Recipe.load("w4a8").replace(
    reconstruction={"iterations": 0}, tuning={"iterations": 0}, scale_search={"candidates": 1}
)


@pytest.mark.slow
def test_the_size_of_any_mix_is_foretold(tiny_vit: Any, random_images: Any, tmp_path: Path) -> None:
    """With what stands beside the weights, which is much of layers as small as these."""
    torch.manual_seed(0)
    model, images = tiny_vit(embed_dim=32), random_images(8)
    models = {name: fd.quantize(model, images, uniform(UNLEARNED, name), sensitivity=1) for name in ("w4a8", "w8a8")}
    options = options_of(models, {"w4a8": 4, "w8a8": 8, "floats": 32})
    found = weigh(models, options, export_onnx)
    assert {piece.layer for piece in found.pieces} == set(options)
    beside = {found.options[name][0].bits - each[0].bits for name, each in options.items()}
    assert len(beside) == 1 and 8 * 100 < min(beside) < 8 * 200
    assert all(found.options[name][1] == each[1] for name, each in options.items())
    for name, whole in models.items():
        assert file_bits(whole, export_onnx) == pytest.approx(
            found.rest + bits_of(found.options, dict.fromkeys(options, name)), abs=8 * len(options)
        )
    for number, step in enumerate((2, 3)):
        formats = {name: "w8a8" if place % step else "w4a8" for place, name in enumerate(options)}
        mix = fd.quantize(model, images, mixed(UNLEARNED, formats))
        size = export_onnx(mix, tmp_path / f"{number}.onnx").stat().st_size
        assert abs(size - (found.rest + bits_of(found.options, formats)) / 8) < 300
