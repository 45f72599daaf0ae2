from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from fimaq_deploy.calibration.quantizers.fake_quant import (
    ActivationQuantizer,
    WeightQuantizer,
    short_scale,
)
from fimaq_deploy.calibration.quantizers.grid import ActivationGrid, WeightGrid
from fimaq_deploy.calibration.quantizers.straight_through import FakeQuantize, round_straight_through

WEIGHT_GRIDS = [*map(WeightGrid, (8, 4, 3, 2)), WeightGrid(4, 4)]
GRIDS = [ActivationGrid(bits, scheme) for bits in (3, 4, 6, 8) for scheme in ("symmetric", "asymmetric")]


def slow_fake_quantize(x: Tensor, scale: float, offset: int, top: int) -> Tensor:
    """One number after another; Python's round is half to even."""
    out = []
    for value in x.flatten().tolist():
        step = round(float(np.float32(value) / np.float32(scale)))
        step = min(max(step, -offset), top - offset)
        out.append(np.float32(step) * np.float32(scale))
    return torch.from_numpy(np.array(out, np.float32)).view(x.shape)


def quantizer_of(grid: ActivationGrid, scale: float, offset: int, nonnegative: bool = False) -> ActivationQuantizer:
    quantizer = ActivationQuantizer(grid, nonnegative).requires_grad_(False)
    quantizer.scale.fill_(scale)
    quantizer.offset.fill_(offset)
    quantizer.enabled = True
    return quantizer


def ties_and_noise(scale: float) -> Tensor:
    """Every half step from far below to far above the grid, and normal values."""
    ties = torch.arange(-600, 601) * (scale / 2)
    return torch.cat([ties, torch.randn(400, generator=torch.Generator().manual_seed(0)) * scale * 20]).view(1, -1)


@pytest.mark.parametrize("grid", GRIDS, ids=str)
@pytest.mark.parametrize("frozen", [False, True])
def test_forward_is_the_slow_reference_ties_included(grid: ActivationGrid, frozen: bool) -> None:
    first, last = grid.offsets
    for offset in {first, (first + last) // 2, last}:
        quantizer = quantizer_of(grid, 0.125, offset)
        if frozen:
            quantizer.freeze()
        x = ties_and_noise(0.125)
        assert torch.equal(quantizer(x), slow_fake_quantize(x, 0.125, offset, 2**grid.bits - 1))


@pytest.mark.parametrize("grid", GRIDS, ids=str)
@pytest.mark.parametrize("nonnegative", [False, True])
def test_freezing_keeps_every_value(grid: ActivationGrid, nonnegative: bool) -> None:
    scale = short_scale(torch.tensor(0.0371), grid.scale_digits).item()
    offset = 0 if nonnegative else grid.offsets[1] // 2 if grid.scheme == "asymmetric" else grid.offsets[0]
    quantizer = quantizer_of(grid, scale, offset, nonnegative)
    x = ties_and_noise(scale)
    learnable = quantizer(x)
    quantizer.freeze()
    assert torch.equal(quantizer(x), learnable)


@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_frozen_values_are_the_scale_times_integers_of_the_range(grid: ActivationGrid) -> None:
    quantizer = quantizer_of(grid, 0.3, grid.offsets[0])
    quantizer.freeze()
    span = quantizer.integer_range()
    steps = quantizer(torch.linspace(-200, 200, 5001)) / quantizer.scale
    assert torch.allclose(steps, steps.round(), atol=1e-4)
    assert (steps.min().round().item(), steps.max().round().item()) == (
        span.low - span.zero_point,
        span.high - span.zero_point,
    )


def test_symmetric_grids_spend_nothing_on_negative_values_of_a_tensor_that_has_none() -> None:
    quantizer = quantizer_of(ActivationGrid(8, "symmetric"), 1 / 127, 0, nonnegative=True)
    span = quantizer.integer_range()
    assert (span.low, span.high, span.zero_point) == (0, 127, 0)
    quantizer.set_bounds(torch.tensor(0.0), torch.tensor(1.0))
    quantizer.freeze()
    assert quantizer(torch.tensor([1.0])).item() == pytest.approx(1, rel=2**-4)
    assert quantizer.integer_range().fits_int8


@pytest.mark.parametrize(("bits", "high"), [(3, 7), (4, 15), (6, 63)])
def test_low_bit_nonnegative_grids_keep_every_integer_in_int8(bits: int, high: int) -> None:
    quantizer = quantizer_of(ActivationGrid(bits, "asymmetric"), 0.1, 0, nonnegative=True)
    assert quantizer.integer_range().fits_int8
    assert (quantizer.integer_range().low, quantizer.integer_range().high) == (0, high)


@pytest.mark.parametrize("grid", GRIDS, ids=str)
@pytest.mark.parametrize(("low", "high"), [(-1.0, 3.0), (0.0, 2.0), (-4.0, 0.0), (-0.2, 0.7), (0.5, 2.0)])
def test_set_bounds_covers_what_it_is_asked_to_cover(grid: ActivationGrid, low: float, high: float) -> None:
    quantizer = ActivationQuantizer(grid)
    quantizer.set_bounds(torch.tensor(low), torch.tensor(high))
    scale, offset = quantizer.scale.item(), quantizer.offset.item()
    assert grid.offsets[0] <= offset <= grid.offsets[1]
    assert -offset * scale <= low + scale / 2 + 1e-6
    assert (quantizer.top - offset) * scale >= high - scale / 2 - 1e-6


def straight_through(x: Tensor) -> Tensor:
    return x + (x.round() - x).detach()


@pytest.mark.parametrize("offset", [0.0, 2.0, 4.6, 15.0])
def test_gradients_are_those_of_the_straight_through_definition(offset: float) -> None:
    top = 15
    generator = torch.Generator().manual_seed(1)
    values = torch.randn(4, 50, generator=generator, dtype=torch.float64) * 3
    weights = torch.randn(4, 50, generator=generator, dtype=torch.float64)

    def leaves() -> list[Tensor]:
        return [t.clone().requires_grad_() for t in (values, values.new_tensor(0.37), values.new_tensor(offset))]

    x, scale, zero = leaves()
    (FakeQuantize.apply(x, scale, zero, top) * weights).sum().backward()
    x_, scale_, zero_ = leaves()
    steps, low = straight_through(x_ / scale_), -straight_through(zero_)
    clamped = torch.where(steps < low, low, torch.where(steps > low + top, low + top, steps))
    out = scale_ * clamped
    (out * weights).sum().backward()
    assert torch.equal(FakeQuantize.apply(x, scale, zero, top).detach(), out.detach())
    for found, expected in zip((x, scale, zero), (x_, scale_, zero_), strict=True):
        torch.testing.assert_close(found.grad, expected.grad)


def test_learning_and_settling_without_a_step_changes_nothing() -> None:
    quantizer = quantizer_of(ActivationGrid(4, "asymmetric"), 0.203125, 5)
    x = torch.randn(3, 40)
    before = quantizer(x)
    groups = quantizer.learn(0.0, 0.01)
    assert [p.requires_grad for group in groups for p in group["params"]] == [True, True]
    torch.testing.assert_close(quantizer(x), before)
    quantizer.settle()
    torch.testing.assert_close(quantizer(x), before)
    assert quantizer.log_scale is None and not quantizer.offset.requires_grad


def test_only_free_offsets_are_learned_and_they_settle_on_integers_of_the_grid() -> None:
    assert len(quantizer_of(ActivationGrid(4, "symmetric"), 0.1, 8).learn(0, 0.01)) == 1
    assert len(quantizer_of(ActivationGrid(4, "asymmetric"), 0.1, 0, nonnegative=True).learn(0, 0.01)) == 1
    quantizer = quantizer_of(ActivationGrid(4, "asymmetric"), 0.1, 8)
    scale, offset = quantizer.learn(0, 0.01)
    assert offset["lr"] == 15 * scale["lr"]
    offset["params"][0].data.fill_(21.4)
    quantizer.settle()
    assert quantizer.offset.item() == 15


def test_a_learning_step_on_the_scale_lowers_the_error() -> None:
    quantizer = quantizer_of(ActivationGrid(4, "asymmetric"), 0.05, 3)
    x = torch.randn(8, 64, generator=torch.Generator().manual_seed(0))
    optimiser = torch.optim.Adam(quantizer.learn(0.0, 0.02))
    before = (quantizer(x) - x).square().mean().item()
    for _ in range(100):
        optimiser.zero_grad()
        (quantizer(x) - x).square().mean().backward()
        optimiser.step()
    quantizer.settle()
    assert (quantizer(x) - x).square().mean().item() < before / 3


def test_dropping_keeps_whole_rows_in_full_precision() -> None:
    quantizer = quantizer_of(ActivationGrid(3, "symmetric"), 0.3125, 4)
    x = torch.randn(40, 10, 16)
    quantized = quantizer(x)
    quantizer.learn(0.5, 0.01)
    mixed = quantizer(x).detach()
    exact, rough = (mixed == x).all(-1), torch.isclose(mixed, quantized).all(-1)
    assert (exact | rough).all()
    assert 0.35 < exact.float().mean() < 0.65
    quantizer.settle()
    assert not (quantizer(x) == x).all(-1).any()


def test_a_quantizer_that_is_off_or_has_no_grid_is_the_identity() -> None:
    x = torch.randn(3, 4)
    off = quantizer_of(ActivationGrid(3, "symmetric"), 0.5, 4)
    off.enabled = False
    assert off(x) is x
    without = ActivationQuantizer(None)
    without.enabled = True
    assert without(x) is x


@pytest.mark.parametrize("digits", [2, 6, 10])
@pytest.mark.parametrize("scale", [1e-12, 3.3e-7, 2.0**-14, 0.0123456, 1.0, 1.9999, 7e4, 1e9])
def test_scales_are_short_float16_numbers_without_zero_or_infinity(scale: float, digits: int) -> None:
    kept = short_scale(torch.tensor(scale), digits)
    assert kept.dtype == torch.float32
    assert torch.equal(kept.half().float(), kept)
    assert 0 < kept.item() < math.inf
    fraction, _ = math.frexp(kept.item())
    assert (fraction * 2 ** (digits + 1)).is_integer()
    if 2.0**-14 <= scale <= 2.0**15:
        assert kept.item() == pytest.approx(scale, rel=2.0 ** -(digits + 1))


FLOAT16_GRIDS = [grid for grid in GRIDS if (grid.bits, grid.scheme) != (8, "asymmetric")]


@pytest.mark.parametrize("grid", [*FLOAT16_GRIDS, *WEIGHT_GRIDS[:4]], ids=str)
def test_every_dequantized_value_is_exact_in_float16(grid: ActivationGrid | WeightGrid) -> None:
    asymmetric = isinstance(grid, ActivationGrid) and grid.scheme == "asymmetric"
    largest = 2**grid.bits - 1 if asymmetric else 2 ** (grid.bits - 1)
    values = short_scale(torch.logspace(-3, 2, 50), grid.scale_digits)[:, None] * torch.arange(-largest, largest + 1)
    assert torch.equal(values.half().float(), values)


def test_sums_of_products_do_not_depend_on_their_order() -> None:
    generator = torch.Generator().manual_seed(0)
    integers = (torch.randn(2, 48, 192, generator=generator) * 30).round().clamp(-128, 127)
    scales = short_scale(torch.rand(2, 48, 1, generator=generator) + 0.01, WeightGrid(8).scale_digits)
    weight, x = integers * scales
    order = torch.randperm(192, generator=generator)
    assert torch.equal(x @ weight.t(), x[:, order] @ weight[:, order].t())
    assert torch.equal(x @ weight.t(), (x.double() @ weight.t().double()).float())


# Weights


@pytest.mark.parametrize("grid", WEIGHT_GRIDS, ids=str)
def test_weights_are_the_slow_reference(grid: WeightGrid) -> None:
    quantizer = WeightQuantizer(grid, 3, 8).requires_grad_(False)
    weight = torch.randn(3, 8, generator=torch.Generator().manual_seed(2))
    quantizer.scale.copy_(torch.rand(quantizer.scale.shape) * 0.5 + 0.1)
    quantizer.latent.copy_(quantizer.steps(weight))
    out = quantizer()
    block = grid.block_size or 8
    for row in range(3):
        for column in range(8):
            scale = quantizer.scale[row, column // block]
            step = min(max(round((weight[row, column] / scale).item()), grid.range.low), grid.range.high)
            assert out[row, column].item() == (step * scale).item()


def test_block_scales_have_one_column_per_block() -> None:
    assert WeightQuantizer(WeightGrid(4, 16), 5, 64).scale.shape == (5, 4)
    assert WeightQuantizer(WeightGrid(4), 5, 64).scale.shape == (5, 1)


def test_weight_gradients_stop_at_the_ends_of_the_grid() -> None:
    quantizer = WeightQuantizer(WeightGrid(3), 1, 4)
    quantizer.latent.data.copy_(torch.tensor([[-9.0, -1.2, 2.4, 8.0]]))
    quantizer().sum().backward()
    assert quantizer.latent.grad.tolist() == [[0, 1, 1, 0]]


def test_learned_weight_scales_settle_where_learning_left_them() -> None:
    quantizer = WeightQuantizer(WeightGrid(4), 2, 3).requires_grad_(False)
    quantizer.latent.copy_(torch.tensor([[1.0, -2, 3], [4, 5, -6]]))
    (log_scale,) = quantizer.learn_scale()
    log_scale.data += math.log(3)
    learned = quantizer().detach()
    quantizer.settle_scale()
    assert quantizer.log_scale is None
    torch.testing.assert_close(quantizer(), learned)
    torch.testing.assert_close(quantizer(), 3 * quantizer.latent)


def test_straight_through_rounding_is_half_to_even_with_the_gradient_of_the_identity() -> None:
    x = torch.tensor([0.5, 1.5, 2.5, -0.5, -1.5, 0.2], requires_grad=True)
    y = round_straight_through(x)
    assert y.tolist() == [0, 2, 2, 0, -2, 0]
    (y * torch.arange(6)).sum().backward()
    assert x.grad.tolist() == [0, 1, 2, 3, 4, 5]


# Operators


def test_operators_have_shapes_without_data() -> None:
    scale, q = torch.tensor(0.5), torch.randint(-8, 8, (32, 6), dtype=torch.int8)
    checks = ("test_schema", "test_faketensor")
    ops = torch.ops.fimaq
    x = torch.randn(4, 5)
    torch.library.opcheck(ops.quantize_dequantize.default, (x, scale, 0, -8, 7), test_utils=checks)
    torch.library.opcheck(ops.dequantize_weight.default, (q, torch.rand(6), 1), test_utils=checks)
    torch.library.opcheck(ops.dequantize_weight_blocked.default, (q, torch.rand(2, 6), 16), test_utils=checks)


def test_dequantizing_is_a_product_with_the_scale_of_the_channel_or_block() -> None:
    q = torch.randint(-8, 8, (4, 3), dtype=torch.int8)
    scale, blocks = torch.rand(3), torch.rand(2, 3)
    by_channel = torch.ops.fimaq.dequantize_weight(q, scale, 1)
    by_block = torch.ops.fimaq.dequantize_weight_blocked(q, blocks, 2)
    for k in range(4):
        for n in range(3):
            assert by_channel[k, n] == q[k, n] * scale[n]
            assert by_block[k, n] == q[k, n] * blocks[k // 2, n]


def test_the_unsigned_container_has_the_values_of_the_asymmetric_grid() -> None:
    x = ties_and_noise(0.125)
    out = torch.ops.fimaq.quantize_dequantize(x, torch.tensor(0.125), 100, 0, 255)
    assert torch.equal(out, slow_fake_quantize(x, 0.125, 100, 255))
