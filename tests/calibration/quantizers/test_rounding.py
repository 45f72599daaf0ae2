from __future__ import annotations

import pytest
import torch
from torch import Tensor

from fimaq_deploy.calibration.quantizers.fake_quant import WeightQuantizer
from fimaq_deploy.calibration.quantizers.grid import WeightGrid
from fimaq_deploy.calibration.quantizers.nearest import above, below, nearest, spacing
from fimaq_deploy.calibration.quantizers.rounding import (
    AdaRound,
    FloatAdaRound,
    FloatSignGradient,
    FloatStraightThrough,
    SignGradient,
    StraightThrough,
    attach,
    harden,
)
from fimaq_deploy.target.numbers import FORMATS, FloatFormat

KINDS = ["adaround", "straight_through", "sign_gradient"]


def latent(seed: int = 0) -> Tensor:
    return torch.randn(6, 20, generator=torch.Generator().manual_seed(seed)) * 3


def quantizer_of(bits: int = 8) -> WeightQuantizer:
    quantizer = WeightQuantizer(WeightGrid(bits), 6, 20).requires_grad_(False)
    quantizer.latent.copy_(latent())
    return quantizer


def test_adaround_starts_at_the_weight() -> None:
    torch.testing.assert_close(AdaRound(latent())(latent()), latent(), rtol=0, atol=1e-5)


def test_adaround_hardens_to_the_nearest_integer_where_nothing_was_learned() -> None:
    assert torch.equal(AdaRound(latent()).hardened(latent()), latent().round())


def test_adaround_can_decide_either_way_and_never_leaves_the_two_neighbours() -> None:
    rounding = AdaRound(latent())
    for push, expected in ((-20.0, latent().floor()), (20.0, latent().floor() + 1)):
        rounding.logits.data.fill_(push)
        assert torch.equal(rounding(latent()), expected)
        assert torch.equal(rounding.hardened(latent()), expected)


@pytest.mark.parametrize("exponent", [20.0, 5.0, 2.0])
def test_the_regulariser_is_zero_when_everything_is_decided_and_largest_in_the_middle(exponent: float) -> None:
    rounding = AdaRound(latent())
    rounding.logits.data.copy_(torch.where(latent() > 0, 20.0, -20.0))
    assert rounding.regulariser(exponent).item() == 0
    rounding.logits.data.zero_()
    assert rounding.regulariser(exponent).item() == pytest.approx(latent().numel())


def test_the_regulariser_is_its_formula_and_pushes_away_from_the_middle() -> None:
    rounding = AdaRound(latent())
    up = rounding.up().detach()
    expected = sum(1 - abs(2 * h - 1) ** 4 for h in up.flatten().tolist())
    value = rounding.regulariser(4.0)
    assert value.item() == pytest.approx(expected, rel=1e-4)
    value.backward()
    off_middle = (up - 0.5).abs() > 1e-2
    assert (torch.sign(-rounding.logits.grad) == torch.sign(up - 0.5))[off_middle & (up > 0) & (up < 1)].all()


def test_annealing_alone_decides_every_weight() -> None:
    rounding = AdaRound(latent())
    optimiser = torch.optim.Adam(rounding.parameters(), lr=0.1)
    for step in range(200):
        optimiser.zero_grad()
        rounding.regulariser(20 - 18 * step / 200).backward()
        optimiser.step()
    assert torch.equal(rounding(latent()), rounding.hardened(latent()))


@pytest.mark.parametrize("kind", [StraightThrough, SignGradient])
def test_straight_through_starts_at_the_nearest_integer_and_passes_gradients(kind: type[StraightThrough]) -> None:
    rounding = kind(latent())
    out = rounding(latent())
    assert torch.equal(out, latent().round())
    weights = torch.randn(6, 20)
    (out * weights).sum().backward()
    assert torch.equal(rounding.delta.grad, weights)


def test_straight_through_may_move_by_more_than_one_step() -> None:
    rounding = StraightThrough(latent())
    rounding.delta.data.fill_(2.0)
    assert torch.equal(rounding.hardened(latent()), (latent() + 2).round())


def test_signed_steps_are_bounded_by_half_a_step() -> None:
    rounding = SignGradient(latent())
    for _ in range(10):
        (rounding(latent()) * torch.ones(6, 20).cumsum(1).sub(10)).sum().backward()
        rounding.step(0.2)
        assert rounding.delta.grad is None
    assert rounding.delta.abs().max().item() == 0.5
    assert (rounding.hardened(latent()) - latent()).abs().max().item() <= 1


def test_a_signed_step_ignores_the_size_of_the_gradient() -> None:
    rounding = SignGradient(latent())
    weights = torch.randn(6, 20)
    (rounding(latent()) * weights).sum().backward()
    rounding.step(0.01)
    torch.testing.assert_close(rounding.delta.data, -0.01 * weights.sign())
    rounding.step(0.01)
    torch.testing.assert_close(rounding.delta.data, -0.01 * weights.sign())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_hardened_weights_are_integers_of_the_grid_within_one_step(kind: str, bits: int) -> None:
    quantizer = quantizer_of(bits)
    module = attach(quantizer, kind)
    optimiser = torch.optim.Adam(module.parameters(), lr=0.02)
    target = torch.randn(6, 20)
    for _ in range(20):
        (quantizer() * target).sum().backward()
        if isinstance(module, SignGradient):
            module.step(0.02)
        else:
            optimiser.step()
            optimiser.zero_grad()
    expected = module.hardened(quantizer.latent).detach()
    harden(quantizer)
    integers = quantizer.integers().detach()
    assert quantizer.soft is None
    assert torch.equal(integers, integers.round())
    assert integers.min() >= quantizer.grid.range.low and integers.max() <= quantizer.grid.range.high
    assert torch.equal(integers, expected.clamp(quantizer.grid.range.low, quantizer.grid.range.high))
    inside = latent().clamp(quantizer.grid.range.low, quantizer.grid.range.high)
    assert (integers - inside).abs().max().item() <= 1


@pytest.mark.parametrize("kind", KINDS)
def test_learned_roundings_beat_the_nearest_ones_on_correlated_inputs(kind: str) -> None:
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(6, 96, generator=generator) * 3
    x = torch.randn(200, 12, generator=generator) @ torch.randn(12, 96, generator=generator)
    quantizer = WeightQuantizer(WeightGrid(6), 6, 96).requires_grad_(False)
    quantizer.latent.copy_(weight)
    wanted = x @ weight.T

    def error() -> Tensor:
        return (x @ quantizer().T - wanted).square().mean()

    nearest = error().item()
    module = attach(quantizer, kind)
    optimiser = torch.optim.Adam(module.parameters(), lr=0.02)
    for step in range(200):
        loss = error() / nearest
        if isinstance(module, AdaRound):
            loss = loss + 0.01 * module.regulariser(20 - 18 * step / 200)
        loss.backward()
        rate = 0.02 * (1 - step / 200)
        if isinstance(module, SignGradient):
            module.step(rate)
        else:
            optimiser.param_groups[0]["lr"] = rate
            optimiser.step()
            optimiser.zero_grad()
    harden(quantizer)
    assert error().item() < 0.5 * nearest


def test_nearest_learns_nothing() -> None:
    quantizer = quantizer_of()
    assert attach(quantizer, "nearest") is None
    harden(quantizer)
    assert torch.equal(quantizer.integers(), latent().round())


FORMS = pytest.mark.parametrize("form", FORMATS.values(), ids=FORMATS)
LATENT = torch.randn(40, 25, generator=torch.Generator().manual_seed(3)) * torch.logspace(-3, 0.7, 25)


@FORMS
def test_adaround_on_floats_starts_at_the_weights_and_ends_at_a_neighbour(form: FloatFormat) -> None:
    rounding = FloatAdaRound(LATENT, form)
    assert torch.allclose(rounding(LATENT), LATENT.clamp(-form.largest, form.largest), rtol=1e-3, atol=1e-3)
    hard = rounding.hardened(LATENT)
    assert torch.equal(nearest(hard, form), hard), "a value of the format"
    assert torch.equal(hard, torch.where(rounding.logits >= 0, above(LATENT, form), below(LATENT, form)))
    assert rounding.regulariser(2.0).item() > 0


@FORMS
def test_straight_through_on_floats_moves_in_steps_of_the_format(form: FloatFormat) -> None:
    rounding = FloatStraightThrough(LATENT, form)
    assert torch.equal(rounding(LATENT), nearest(LATENT, form))
    with torch.no_grad():
        rounding.delta.fill_(1.0)
    moved = rounding.hardened(LATENT) - LATENT
    inside = LATENT.abs() < form.largest / 2
    assert (moved[inside] > 0).all() and (moved[inside] <= 2 * spacing(LATENT, form)[inside]).all()


@FORMS
def test_signed_steps_on_floats_stay_within_half_a_step(form: FloatFormat) -> None:
    rounding = FloatSignGradient(LATENT, form)
    for _ in range(3):
        rounding(LATENT).sum().backward()
        rounding.step(0.3)
    assert (rounding.delta == -0.5).all()
    assert torch.equal(nearest(rounding.hardened(LATENT), form), rounding.hardened(LATENT))
