"""Bits and losses of each layer are the model's own."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch

import fimaq_deploy as fd
from fimaq_deploy.calibration.mixing.options import FLOATS, formats_for, mixed, options_of, uniform
from fimaq_deploy.calibration.network.rules import Kept, LayerGrids
from fimaq_deploy.calibration.quantizers.layers import quantized_layers
from fimaq_deploy.export import trace
from fimaq_deploy.recipe import Recipe
from fimaq_deploy.target import find_target

QUICK = Recipe.load("w4a8").replace(reconstruction={"iterations": 0}, tuning={"iterations": 0})
BITS = {"w4a8": 4, "w8a8": 8, FLOATS: 32}


@pytest.fixture(scope="module")
def models(tiny_vit: Any, random_images: Any) -> dict[str, fd.QuantizedModel]:
    torch.manual_seed(0)
    model, images = tiny_vit(embed_dim=32), random_images(8)
    return {
        name: fd.quantize(model, images, uniform(QUICK, name), sensitivity=8)
        for name in formats_for(find_target("onnxruntime-cpu"))
    }


def test_a_uniform_recipe_holds_for_the_edges_too(models: dict[str, fd.QuantizedModel]) -> None:
    for name, model in models.items():
        found = {one.weights.bits for one in model.plan.values() if isinstance(one, LayerGrids)}
        assert found == {BITS[name]}


def test_options_are_counted_from_the_layers(models: dict[str, fd.QuantizedModel]) -> None:
    options = options_of(models, BITS)
    layers = dict(quantized_layers(models["w8a8"].model))
    assert set(options) <= set(models["w8a8"].plan) and "blocks.0.mlp.fc1" in options
    for layer, found in options.items():
        weights = layers[layer].q_weight.numel()
        assert [one.format for one in found] == ["w4a8", "w8a8", FLOATS]
        assert [one.bits for one in found] == [4 * weights, 8 * weights, 32 * weights]
        assert found[2].loss == 0 <= found[1].loss
    assert sum(each[0].loss for each in options.values()) > sum(each[1].loss for each in options.values())


def test_a_mix_gives_each_layer_its_format(tiny_vit: Any, random_images: Any) -> None:
    formats = {"blocks.0.mlp.fc1": "w8a8", "blocks.0.mlp.fc2": FLOATS, "blocks.1.mlp.fc1": "w4a8"}
    plan = fd.quantize(tiny_vit(embed_dim=32), random_images(8), mixed(QUICK, formats)).plan
    assert plan["blocks.0.mlp.fc1"].weights.bits == 8 and plan["blocks.1.mlp.fc1"].weights.bits == 4
    assert isinstance(plan["blocks.0.mlp.fc2"], Kept)


def test_floats_of_8_bits_are_a_format_where_every_gpu_has_them() -> None:
    rtx = find_target("tensorrt-rtx")
    assert formats_for(rtx) == ("w4a8", "w8a8"), "engines for every generation, and older ones have none"
    assert formats_for(replace(rtx, compute_capability=(8, 9))) == ("w4a8", "w8a8", "fp8")
    assert formats_for(replace(rtx, compute_capability=(12, 0))) == ("w4a8", "w8a8", "fp8", "nvfp4")


@pytest.mark.slow
def test_4_bit_floats_are_an_option_of_layers_with_blocks(tiny_vit: Any, random_images: Any, tmp_path: Path) -> None:
    """Not of the patch embedding, which is a convolution; and a file can hold them beside integers and floats."""
    model, images = tiny_vit(embed_dim=32), random_images(8)
    where = {"target": "tensorrt-rtx", "sm": 120}
    models = {one: fd.quantize(model, images, uniform(QUICK, one), sensitivity=8, **where) for one in ("w8a8", "nvfp4")}
    options = options_of(models, {"w8a8": 8, "nvfp4": 8.5, FLOATS: 32})
    assert [one.format for one in options["patch_embed.proj"]] == ["w8a8", FLOATS]
    assert [one.format for one in options["blocks.0.mlp.fc1"]] == ["w8a8", "nvfp4", FLOATS]
    assert options["blocks.0.mlp.fc1"][1].loss > options["blocks.0.mlp.fc1"][0].loss
    formats = {"blocks.0.mlp.fc1": "nvfp4", "blocks.0.mlp.fc2": FLOATS, "blocks.1.mlp.fc1": "w8a8"}
    mix = fd.quantize(model, images, mixed(QUICK, formats), **where)
    assert mix.plan.float_products == [("nvfp4", "layer")]
    file = trace(mix).write(tmp_path / "mix.onnx", find_target("tensorrt-rtx"))
    kinds = {one.name: one.data_type for one in onnx.load(tmp_path / "mix.onnx").graph.initializer}
    assert kinds["blocks.0.mlp.fc1.q_weight"] == onnx.TensorProto.FLOAT4E2M1, file
    assert kinds["blocks.1.mlp.fc1.q_weight"] == onnx.TensorProto.INT8
