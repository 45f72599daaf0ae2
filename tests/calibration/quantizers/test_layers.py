from __future__ import annotations

import pytest
import torch
from timm.layers.attention import Attention
from torch import nn

from fimaq_deploy.calibration.learning.scale_search import search_stage
from fimaq_deploy.calibration.quantizers.grid import ActivationGrid, WeightGrid
from fimaq_deploy.calibration.quantizers.layers import (
    AttentionQuantizers,
    QuantizedConv2d,
    QuantizedLayer,
    QuantizedLinear,
    activation_quantizers,
    enable_quantization,
    freeze,
    quantized_layers,
    strip,
    thaw,
    weights_held,
)
from fimaq_deploy.models.families.timm import TimmAttention

ACTIVATIONS = ActivationGrid(8, "asymmetric")


def linear(grid: WeightGrid, *, bias: bool = True, inputs: ActivationGrid | None = ACTIVATIONS) -> QuantizedLinear:
    torch.manual_seed(0)
    layer = QuantizedLinear(nn.Linear(32, 6, bias=bias), grid, inputs).requires_grad_(False)
    search_stage(layer, [torch.randn(50, 32)], 32)
    return layer


def convolution(**settings: int) -> QuantizedConv2d:
    torch.manual_seed(0)
    layer = QuantizedConv2d(nn.Conv2d(4, 6, 3, **settings), WeightGrid(4), ACTIVATIONS).requires_grad_(False)
    search_stage(layer, [torch.randn(5, 4, 9, 9)], 32)
    return layer


GRIDS = [WeightGrid(8), WeightGrid(4), WeightGrid(3), WeightGrid(2), WeightGrid(4, 16), WeightGrid(4, 32)]


@pytest.mark.parametrize("grid", GRIDS, ids=str)
@pytest.mark.parametrize("bias", [True, False])
def test_a_linear_computes_three_ways(grid: WeightGrid, bias: bool) -> None:
    layer = linear(grid, bias=bias)
    x = torch.randn(2, 7, 32)
    exact = nn.functional.linear(x, layer.weight, layer.bias)
    assert torch.equal(layer(x), exact)
    enable_quantization(layer, True)
    learnable = layer(x)
    quantized_x = layer.input_quantizer(x)
    torch.testing.assert_close(
        learnable, nn.functional.linear(quantized_x, layer.weight_quantizer(), layer.bias), rtol=1e-5, atol=1e-5
    )
    assert not torch.allclose(learnable, exact, atol=1e-4)
    freeze(layer)
    # Scales moved to float16 numbers, nothing else did.
    torch.testing.assert_close(layer(x), learnable, rtol=0.02, atol=0.02)
    enable_quantization(layer, False)
    assert torch.equal(layer(x), exact)


@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_frozen_linears_store_integers_in_the_layout_of_the_graph(grid: WeightGrid) -> None:
    layer = linear(grid)
    freeze(layer)
    assert layer.q_weight.dtype == torch.int8 and layer.q_weight.shape == (32, 6)
    assert layer.q_weight.is_contiguous()
    assert layer.q_scale.shape == ((6,) if grid.block_size is None else (32 // grid.block_size, 6))
    assert layer.q_weight.min() >= grid.range.low and layer.q_weight.max() <= grid.range.high
    assert torch.equal(layer.q_scale.half().float(), layer.q_scale)


def test_held_weights_are_those_of_the_moment_they_were_made() -> None:
    layer, x = linear(WeightGrid(4)), torch.randn(3, 32)
    enable_quantization(layer, True)
    expected = layer(x)
    with weights_held(layer):
        assert torch.equal(layer(x), expected)
        layer.weight_quantizer.scale.mul_(2)
        assert torch.equal(layer(x), expected)
    assert not torch.equal(layer(x), expected)


def test_a_frozen_linear_is_a_matmul_with_dequantized_weights() -> None:
    layer = linear(WeightGrid(4, 16))
    enable_quantization(layer, True)
    freeze(layer)
    x = torch.randn(3, 32)
    weight = layer.q_weight * layer.q_scale.repeat_interleave(16, 0)
    torch.testing.assert_close(layer(x), layer.input_quantizer(x) @ weight + layer.bias)


@pytest.mark.parametrize("settings", [{}, {"stride": 2, "padding": 1}, {"dilation": 2}, {"groups": 2}])
def test_a_convolution_computes_three_ways(settings: dict[str, int]) -> None:
    layer = convolution(**settings)
    x = torch.randn(2, 4, 9, 9)
    groups = settings.get("groups", 1)
    exact = nn.Conv2d(4, 6, 3, **settings)
    exact.weight, exact.bias = layer.weight, layer.bias
    assert torch.equal(layer(x), exact(x))
    enable_quantization(layer, True)
    learnable = layer(x)
    freeze(layer)
    assert layer.q_weight.shape == (6, 4 // groups, 3, 3) and layer.q_scale.shape == (6,)
    torch.testing.assert_close(layer(x), learnable, rtol=0.02, atol=0.02)


@pytest.mark.parametrize("layer", [linear(grid) for grid in GRIDS] + [convolution()])
def test_thawing_and_freezing_again_keeps_every_bit(layer: QuantizedLayer) -> None:
    enable_quantization(layer, True)
    freeze(layer)
    shape = (2, 4, 9, 9) if isinstance(layer, QuantizedConv2d) else (3, 32)
    x, integers, scale = torch.randn(shape), layer.q_weight.clone(), layer.q_scale.clone()
    frozen = layer(x)
    thaw(layer)
    torch.testing.assert_close(layer(x), frozen, rtol=1e-5, atol=1e-5)
    freeze(layer)
    assert torch.equal(layer.q_weight, integers) and torch.equal(layer.q_scale, scale)
    assert torch.equal(layer(x), frozen)


def test_stripping_drops_what_only_learning_needed() -> None:
    layer = linear(WeightGrid(4))
    enable_quantization(layer, True)
    freeze(layer)
    x = torch.randn(3, 32)
    before = layer(x)
    strip(layer)
    assert layer.weight is None and layer.weight_quantizer is None
    assert torch.equal(layer(x), before)
    assert not any("weight_quantizer" in name or name == "weight" for name in layer.state_dict())


def test_an_input_without_grid_stays_in_high_precision() -> None:
    layer = linear(WeightGrid(4), inputs=None)
    enable_quantization(layer, True)
    x = torch.randn(3, 32)
    torch.testing.assert_close(layer(x), nn.functional.linear(x, layer.weight_quantizer(), layer.bias))
    assert not list(activation_quantizers(layer))
    assert [name for name, _ in quantized_layers(layer)] == [""]


def test_all_four_attention_operands_are_quantized() -> None:
    torch.manual_seed(0)
    grid = ActivationGrid(3, "asymmetric")
    attention = Attention(32, 4).eval()
    twin = TimmAttention(attention)
    twin.quantize(AttentionQuantizers(grid, grid))
    twin.requires_grad_(False)
    x = torch.randn(2, 9, 32)
    exact = twin(x)
    search_stage(twin, [x], 16)
    assert [name for name, _ in activation_quantizers(twin)] == [f"quantizers.{n}" for n in ("q", "k", "v", "softmax")]
    assert torch.equal(twin(x), exact)
    enable_quantization(twin, True)
    assert twin.quantizers.softmax.integer_range().low == 0
    seen = {}
    for name, quantizer in activation_quantizers(twin):
        quantizer.enabled = False
        seen[name] = (twin(x) - exact).abs().max().item()
        enable_quantization(twin, True)
    both = (twin(x) - exact).abs().max().item()
    assert both > 0 and all(value != both for value in seen.values())
