from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from fimaq_deploy.calibration.findings.usage import GridUse, Tally, clipped_shares, grid_use
from fimaq_deploy.calibration.network.attentions import attention_tokens
from fimaq_deploy.calibration.network.plan import make_plan
from fimaq_deploy.calibration.network.quantized_copy import quantized_copy
from fimaq_deploy.calibration.quantization import quantize
from fimaq_deploy.calibration.quantizers.fake_quant import seal_activations
from fimaq_deploy.calibration.quantizers.grid import ActivationGrid, IntegerRange, WeightGrid
from fimaq_deploy.calibration.quantizers.layers import QuantizedLinear, freeze
from fimaq_deploy.calibration.state import mark_frozen
from fimaq_deploy.target import find_target

Make = Callable[..., Any]


def test_a_tally_counts_integers_and_what_lies_beyond_them() -> None:
    tally = Tally(IntegerRange(-2, 3), torch.device("cpu"))
    tally.add(torch.tensor([-2.4, -2.6, 0.2, -0.3, 3.4]))
    tally.add(torch.tensor([[3.6, 9.0], [1.0, 1.2], [0.5, 1.0]]))
    assert tally.use("x", "weight", 3, tally.counts.tolist()) == GridUse(
        "x", "weight", 3, 4, 6, pytest.approx(100 * 3 / 11)
    )


def test_nothing_seen_is_nothing_clipped() -> None:
    tally = Tally(IntegerRange(0, 15), torch.device("cpu"))
    assert tally.use("x", "activation", 4, tally.counts.tolist()).clipped == 0


def layer_of(weight: torch.Tensor, scale: float, block_size: int | None = None) -> QuantizedLinear:
    """A frozen layer of one scale, its weights rounded to nearest, and inputs on integers 0 to 7."""
    linear = torch.nn.Linear(weight.shape[1], weight.shape[0], bias=False)
    linear.weight.data = weight
    layer = QuantizedLinear(linear, WeightGrid(4, block_size), ActivationGrid(3, "asymmetric"))
    layer.weight_quantizer.scale.data.fill_(scale)
    layer.weight_quantizer.latent.data.copy_(weight / scale)
    layer.input_quantizer.scale.data.fill_(0.5)
    freeze(layer)
    mark_frozen(layer)
    return layer


@pytest.mark.parametrize("block_size", [None, 16])
def test_a_layer_by_hand(block_size: int | None) -> None:
    weight = torch.zeros(2, 32)
    weight[0, :4] = torch.tensor([0.5, -1.0, 4.0, -4.0])  # steps 1, -2, 8 and -8 of [-8, 7]
    model = torch.nn.Sequential(layer_of(weight, 0.5, block_size))
    x = torch.zeros(1, 32)
    x[0, :4] = torch.tensor([0.5, 3.5, 4.0, -0.5])  # steps 1, 7, 8 and -1 of [0, 7]
    assert grid_use(model, [x]) == [
        GridUse("0", "weight", 4, 5, 16, pytest.approx(100 * 1 / 64)),
        GridUse("0", "activation", 3, 3, 8, pytest.approx(100 * 2 / 32)),
    ]


def test_a_zero_point_belongs_to_the_integers() -> None:
    layer = layer_of(torch.eye(4), 0.5)
    layer.input_quantizer.grid = ActivationGrid(8, "asymmetric")
    layer.input_quantizer.offset.data.fill_(100)
    seal_activations([layer.input_quantizer])
    (found,) = (
        use
        for use in grid_use(torch.nn.Sequential(layer), [torch.tensor([[-50.0, -50.5, 77.5, 78.0]])])
        if use.kind == "activation"
    )
    assert (found.used_levels, found.levels, found.clipped) == (2, 256, 50.0)


@pytest.mark.parametrize("family", ["tiny_vit", "tiny_swin"])
def test_every_quantized_tensor_of_a_model_is_told_once(
    family: str, random_images: Make, quick_recipe: Make, request: pytest.FixtureRequest
) -> None:
    model = request.getfixturevalue(family)()
    images = random_images(8, 16 if family == "tiny_vit" else 32)
    quantized = quantize(model, images, quick_recipe(), "tensorrt")
    found = [(use.name, use.kind) for use in quantized.grids]
    assert len(found) == len(set(found))
    block = "blocks.0" if family == "tiny_vit" else "layers.0.blocks.0"
    names = [f"{block}.attn.{part}" for part in ("qkv", "proj", "q", "k", "v", "softmax")]
    assert {(name, "activation") for name in (*names, f"{block}.mlp.fc1")} <= set(found)
    assert {name for name, kind in found if kind == "weight" and name.startswith(block)} == {
        f"{block}.{part}" for part in ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")
    }
    assert all(1 < use.used_levels <= use.levels and 0 <= use.clipped < 20 for use in quantized.grids)
    assert {use.levels for use in quantized.grids if use.name == names[0]} == {16}


def test_weights_that_stay_in_high_precision_are_not_told(
    tiny_vit: Make, random_images: Make, quick_recipe: Make
) -> None:
    recipe = quick_recipe(activations={"bits": 16}, patch_embed={"activation_bits": 16}, head={"activation_bits": 16})
    assert {use.kind for use in quantize(tiny_vit(), random_images(8), recipe).grids} == {"weight"}


def test_counting_changes_nothing(tiny_vit: Make, random_images: Make, quick_recipe: Make) -> None:
    model, images = tiny_vit(), random_images(8)
    plan = make_plan(model, quick_recipe(), find_target("tensorrt"), attention_tokens(model, images[:1]))
    twin = quantized_copy(model, plan)
    freeze(twin)
    mark_frozen(twin)
    before = twin(images)
    first = grid_use(twin, images.split(3))
    assert first == grid_use(twin, [images])
    assert torch.equal(twin(images), before)


def test_shares_of_other_images_are_by_the_names_of_the_tensors() -> None:
    model = torch.nn.Sequential(layer_of(torch.randn(8, 8), 0.2))
    images = torch.arange(8.0)[None] / 2
    assert clipped_shares(model, [images]) == {"0": 0.0}
    assert clipped_shares(model, [images, 2 * images]) == {"0": pytest.approx(100 * 4 / 16)}
