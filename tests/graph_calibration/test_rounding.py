from __future__ import annotations

import pytest
import torch

from fimaq_deploy.calibration.quantizers.grid import WeightGrid
from fimaq_deploy.graph_calibration.rounding import Moments, descend, fit, nearest

GRID = WeightGrid(4)


def _moments(rows: torch.Tensor, original: torch.Tensor) -> Moments:
    moments = Moments(rows.shape[1])
    for part in zip(rows.split(100), original.split(100), strict=True):
        moments.add(*part)
    return moments


@pytest.fixture(scope="module")
def case() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Weights, and inputs whose channels depend on each other, with an error in what the quantized network hands on."""
    draw = torch.Generator().manual_seed(0)
    mixing = torch.randn(24, 24, generator=draw)
    original = torch.randn(1000, 24, generator=draw) @ mixing + 1
    own = original + 0.2 * torch.randn(1000, 24, generator=draw)
    return torch.randn(16, 24, generator=draw), own, original


def _error(weight: torch.Tensor, bias: torch.Tensor, case: tuple) -> float:
    wanted = case[2] @ case[0].T
    return float((case[1] @ weight.T + bias - wanted).square().mean() / wanted.square().mean())


def test_fitted_integers_err_less_than_the_nearest_on_the_rows_themselves(case: tuple) -> None:
    moments = _moments(case[1], case[2])
    made = fit(case[0], torch.zeros(16), moments, GRID, 32)
    integers, scale = nearest(case[0], GRID, case[1].square().mean(0), 32)
    own = _error(made.integers * made.scale, made.bias, case)
    assert own < 0.6 * _error(integers * scale, torch.zeros(16), case)
    assert made.after < 0.6 * made.before
    assert made.integers.min() >= -8 and made.integers.max() <= 7


def test_what_is_left_of_the_mean_goes_into_the_bias(case: tuple) -> None:
    made = fit(case[0], torch.zeros(16), _moments(case[1], case[2]), GRID, 32)
    left = case[1] @ (made.integers * made.scale).T + made.bias - case[2] @ case[0].T
    assert left.mean(0).abs().max() < 1e-3


def test_one_row_changes_the_weights_by_no_more_than_rounding_does() -> None:
    draw = torch.Generator().manual_seed(0)
    weight, row = torch.randn(20, 32, generator=draw) / 6, torch.randn(1, 32, generator=draw)
    made = fit(
        weight, torch.zeros(20), _moments(row + 0.01 * torch.randn(1, 32, generator=draw), row), WeightGrid(8), 32
    )
    assert (made.integers * made.scale - weight).norm() < 0.05 * weight.norm()


def test_without_a_bias_none_is_made_up(case: tuple) -> None:
    assert fit(case[0], None, _moments(case[1], case[2]), GRID, 32).bias is None


def test_every_sweep_lowers_the_error_and_stays_on_the_grid(case: tuple) -> None:
    own, _ = _moments(case[1], case[2]).matrices(centred=False)
    wanted, (integers, scale) = case[0].double(), nearest(case[0], GRID, own.diagonal().float(), 32)
    found = descend(integers.double(), scale.double(), wanted, own, GRID)

    def error(candidate: torch.Tensor) -> float:
        off = candidate * scale.double() - wanted
        return float(((off @ own) * off).sum())

    assert error(found) < error(integers.double())
    for column in range(3):  # no single step is better
        for step in (-1, 1):
            moved = found.clone()
            moved[:, column] = (moved[:, column] + step).clamp(-8, 7)
            assert error(moved) >= error(found) - 1e-9


def test_blocks_of_inputs_have_scales_of_their_own(case: tuple) -> None:
    grid = WeightGrid(4, 8)
    integers, scale = nearest(case[0], grid, torch.ones(24), 16)
    assert integers.shape == (16, 24) and scale.shape == (16, 3)
