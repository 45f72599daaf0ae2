from __future__ import annotations

import itertools

import pytest
import torch
from fixtures.second_device import metered, second_device
from torch import Tensor, nn

from fimaq_deploy.calibration.learning import scale_search
from fimaq_deploy.calibration.learning.scale_search import (
    best_weight_scale,
    observe,
    search_activations,
    search_stage,
)
from fimaq_deploy.calibration.quantizers.fake_quant import ActivationQuantizer, short_scale
from fimaq_deploy.calibration.quantizers.grid import ActivationGrid, WeightGrid
from fimaq_deploy.calibration.quantizers.layers import QuantizedConv2d, QuantizedLinear, enable_quantization, freeze

WEIGHT_GRIDS = [*map(WeightGrid, (8, 4, 3, 2)), WeightGrid(4, 4)]


def error_of(quantizer: ActivationQuantizer, x: Tensor) -> float:
    quantizer.enabled = True
    with torch.no_grad():
        return (quantizer(x) - x).square().mean().item()


def values(kind: str) -> Tensor:
    x = torch.randn(4000, generator=torch.Generator().manual_seed(0))
    outliers = torch.cat([x, x.new_tensor([40.0, -3.0])])
    return {"normal": x, "gelu": nn.functional.gelu(2 * x), "outliers": outliers}[kind]


@pytest.mark.parametrize("kind", ["normal", "gelu", "outliers"])
@pytest.mark.parametrize("bits", [3, 4, 6, 8])
@pytest.mark.parametrize("scheme", ["symmetric", "asymmetric"])
def test_searched_bounds_beat_the_extremes(kind: str, bits: int, scheme: str) -> None:
    x = values(kind)
    with torch.no_grad():
        extremes = ActivationQuantizer(ActivationGrid(bits, scheme))
        extremes.set_bounds(x.min(), x.max())
        searched = ActivationQuantizer(ActivationGrid(bits, scheme))
        search_activations([searched], [x], 64)
    assert error_of(searched, x) <= error_of(extremes, x) * 1.0001


@pytest.mark.parametrize("kind", ["normal", "gelu", "outliers"])
def test_two_descents_come_close_to_all_pairs_of_bounds(kind: str) -> None:
    x = values(kind)
    searched, tried = (ActivationQuantizer(ActivationGrid(4, "asymmetric")).requires_grad_(False) for _ in range(2))
    search_activations([searched], [x], 40)
    best = float("inf")
    for low, high in itertools.product(torch.linspace(0.02, 1, 40), torch.linspace(0.02, 1, 40)):
        tried.set_bounds(x.min() * low, x.max() * high)
        best = min(best, error_of(tried, x))
    assert error_of(searched, x) <= 1.1 * best


@pytest.mark.parametrize("kind", ["normal", "gelu", "outliers"])
@pytest.mark.parametrize("bits", [3, 6])
def test_a_search_that_stops_where_nothing_moves_finds_what_a_whole_one_does(kind: str, bits: int) -> None:
    """Only the host stops: asking a device would wait for it."""
    found = []
    with second_device() as device:
        for place in (torch.device("cpu"), device):
            quantizer = ActivationQuantizer(ActivationGrid(bits, "asymmetric")).requires_grad_(False).to(place)
            search_activations([quantizer], [values(kind).to(place)], 64)
            found.append((float(quantizer.scale), float(quantizer.offset)))
    assert found[0] == found[1]


def test_a_constant_or_empty_range_gives_a_usable_scale() -> None:
    for x in (torch.zeros(50), torch.full((50,), 2.0), torch.full((50,), -2.0)):
        quantizer = ActivationQuantizer(ActivationGrid(4, "asymmetric")).requires_grad_(False)
        search_activations([quantizer], [x], 16)
        quantizer.enabled = True
        quantizer.freeze()
        torch.testing.assert_close(quantizer(x), x, rtol=0.05, atol=1e-3)


@pytest.mark.parametrize("grid", WEIGHT_GRIDS, ids=str)
@pytest.mark.parametrize("at_once", [1, 3, 64])
def test_candidates_tried_together_are_candidates_tried_in_turn(
    grid: WeightGrid, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    weight, importance = torch.randn(12, 40), torch.rand(40)
    found = []
    for values in (1, at_once * weight.numel()):
        monkeypatch.setattr(scale_search, "_HOST_VALUES", values)
        found.append(best_weight_scale(grid, weight, importance, 33))
    assert torch.equal(*found)


@pytest.mark.parametrize("grid", WEIGHT_GRIDS, ids=str)
def test_weight_scales_are_the_best_of_their_candidates(grid: WeightGrid) -> None:
    generator = torch.Generator().manual_seed(0)
    weight, importance = torch.randn(3, 8, generator=generator), torch.rand(8, generator=generator)
    found = best_weight_scale(grid, weight, importance, 20)
    size = grid.block_size or 8

    def error(part: Tensor, share: Tensor, scale: float) -> float:
        low, high = grid.range.low, grid.range.high
        steps = [min(max(round(w / scale), low), high) * scale for w in part.tolist()]
        return sum(i * (s - w) ** 2 for i, s, w in zip(share.tolist(), steps, part.tolist(), strict=True))

    for row, block in itertools.product(range(3), range(8 // size)):
        part = weight[row, block * size : (block + 1) * size]
        share = importance[block * size : (block + 1) * size]
        bound = max(-part.min().item() / -grid.range.low, part.max().item() / grid.range.high)
        candidates = short_scale(bound * torch.linspace(1, 0.3, 20), grid.scale_digits, up=True)
        best = min(error(part, share, scale) for scale in candidates.tolist())
        assert error(part, share, found[row, block].item()) == pytest.approx(best, rel=1e-3, abs=1e-6)


def test_layers_of_one_width_are_searched_together_as_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    grid, x = ActivationGrid(4, "asymmetric"), torch.randn(30, 8)
    layers = [
        QuantizedLinear(nn.Linear(8, out), WeightGrid(4, size), grid) for out, size in ((6, None), (3, 4), (4, 4))
    ]
    stage = nn.ModuleList(layers).requires_grad_(False)
    stage.forward = lambda x: [layer(x) for layer in layers]  # type: ignore[method-assign]
    found = []
    for values in (1, 2**18):
        monkeypatch.setattr(scale_search, "_HOST_VALUES", values)
        search_stage(stage, [x], 16)
        found.append([tensor.clone() for layer in layers for tensor in layer.weight_quantizer.parameters()])
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


def test_inputs_that_matter_get_the_smaller_error() -> None:
    torch.manual_seed(0)
    layer = QuantizedLinear(nn.Linear(16, 4), WeightGrid(2), None).requires_grad_(False)
    x = torch.randn(100, 16) * torch.where(torch.arange(16) < 4, 10.0, 0.1)
    search_stage(layer, [x], 64)
    weighted = (x @ (layer.weight_quantizer() - layer.weight).T).square().mean()
    plain = layer.weight_quantizer
    plain.scale.copy_(best_weight_scale(plain.grid, layer.weight, torch.ones(16), 64))
    plain.latent.copy_(plain.steps(layer.weight))
    assert weighted < (x @ (plain() - layer.weight).T).square().mean()


def test_searching_leaves_the_stage_in_full_precision_with_latents_at_the_weights() -> None:
    torch.manual_seed(0)
    grid = ActivationGrid(4, "asymmetric")
    stage = nn.Sequential(
        QuantizedLinear(nn.Linear(8, 12), WeightGrid(4), grid),
        QuantizedLinear(nn.Linear(12, 4), WeightGrid(4, 4), grid),
    ).requires_grad_(False)
    x = torch.randn(30, 8)
    exact = stage(x)
    search_stage(stage, x.split(10), 32)
    assert torch.equal(stage(x), exact)
    for layer in stage:
        quantizer = layer.weight_quantizer
        torch.testing.assert_close(quantizer.latent * quantizer.expand(quantizer.scale), layer.weight)
        assert layer.input_quantizer.observer is None


def test_observers_see_full_precision_tensors_by_name() -> None:
    torch.manual_seed(0)
    stage = nn.Sequential(
        QuantizedConv2d(nn.Conv2d(3, 4, 2), WeightGrid(4), None),
        nn.Flatten(1),
        QuantizedLinear(nn.Linear(36, 4), WeightGrid(4), ActivationGrid(4, "asymmetric")),
    ).requires_grad_(False)
    x = torch.randn(6, 3, 4, 4)
    seen = observe(stage, x.split(3))
    assert set(seen) == {"0.input_quantizer", "2.input_quantizer"}
    assert seen["0.input_quantizer"].sample().max() == x.max()
    assert seen["2.input_quantizer"].sample().max() == stage[0](x).max()


def test_a_search_hardly_depends_on_how_the_images_are_batched() -> None:
    torch.manual_seed(0)
    layers = [QuantizedLinear(nn.Linear(8, 4), WeightGrid(4), ActivationGrid(4, "asymmetric")) for _ in range(2)]
    layers[1].load_state_dict(layers[0].state_dict())
    x = torch.randn(24, 8)
    for layer, size in zip(layers, (24, 6), strict=True):
        layer.requires_grad_(False)
        search_stage(layer, x.split(size), 32)
    torch.testing.assert_close(layers[0].input_quantizer.scale, layers[1].input_quantizer.scale, rtol=0.1, atol=0)
    torch.testing.assert_close(layers[0].weight_quantizer.scale, layers[1].weight_quantizer.scale)


def quantizers_and_values(count: int, lengths: list[int]) -> tuple[list[ActivationQuantizer], list[Tensor]]:
    grid = ActivationGrid(4, "asymmetric")
    made = [ActivationQuantizer(grid).requires_grad_(False) for _ in range(count)]
    generator = torch.Generator().manual_seed(1)
    return made, [torch.randn(n, generator=generator) * (1 + n % 7) + n % 3 for n in lengths]


def test_searched_together_is_searched_in_turn() -> None:
    """On the host to the last bit, also where some are longer than others."""
    alone, values = quantizers_and_values(5, [40, 90, 40, 41, 90])
    together, _ = quantizers_and_values(5, [])
    for quantizer, x in zip(alone, values, strict=True):
        search_activations([quantizer], [x], 24)
    search_activations(together, values, 24)
    for one, other in zip(alone, together, strict=True):
        assert torch.equal(one.scale, other.scale) and torch.equal(one.offset, other.offset)


def test_on_a_device_all_lengths_are_searched_together() -> None:
    """In fewer launches than one of them takes twice, and to the same result."""
    here, values = quantizers_and_values(5, [40, 90, 40, 41, 90])
    search_activations(here, values, 24)
    with second_device() as device:
        there, launches = [quantizer.to(device) for quantizer in quantizers_and_values(5, [])[0]], []
        for count in (1, 5):
            with metered() as meter:
                search_activations(there[:count], [x.to(device) for x in values[:count]], 24)
            launches.append(meter.launches)
        for one, other in zip(here, there, strict=True):
            torch.testing.assert_close(one.scale, other.scale.cpu())
            assert torch.equal(one.offset, other.offset.cpu())
    assert launches[1] < 2 * launches[0]


@pytest.mark.parametrize(("together", "forwards"), [(1, 5), (2, 3), (4, 2)])
def test_batches_seen_as_one_are_seen_as_they_are(together: int, forwards: int) -> None:
    """Five batches, the last one smaller: the same values are kept, in another order."""
    torch.manual_seed(0)
    layer = QuantizedLinear(nn.Linear(8, 4), WeightGrid(4), ActivationGrid(4, "asymmetric")).requires_grad_(False)
    batches = torch.randn(22, 6, 8).split(5)
    calls = []
    layer.register_forward_pre_hook(lambda _module, inputs: calls.append(len(inputs[0])))
    (one,) = observe(layer, batches).values()
    calls.clear()
    (other,) = observe(layer, batches, together).values()
    assert (len(calls), sum(calls)) == (forwards, 22)
    assert torch.equal(one.sample().sort().values, other.sample().sort().values)
    torch.testing.assert_close(one.second_moments(), other.second_moments())


@pytest.mark.parametrize("size", [1e-1, 1e-3, 1e-4, 1e-5])
def test_channels_of_small_weights_freeze_to_their_weights(size: float) -> None:
    """Float16 holds few scales this small: the integers must belong to the scale that is kept."""
    torch.manual_seed(0)
    linear = nn.Linear(64, 4, bias=False)
    linear.weight.data.normal_().mul_(size)
    layer = QuantizedLinear(linear, WeightGrid(8), None).requires_grad_(False)
    x = torch.randn(100, 64)
    search_stage(layer, [x], 64)
    enable_quantization(layer, True)
    freeze(layer)
    error = (layer.q_weight.float() * layer.q_scale).T - layer.weight
    assert (error.abs() <= 0.51 * layer.q_scale[:, None]).float().mean().item() > 0.97
