from __future__ import annotations

from collections.abc import Iterator
from typing import get_args

import pytest
import torch
from torch import Tensor, nn

from fimaq_deploy.calibration.learning import fisher
from fimaq_deploy.calibration.learning.activations import ActivationStore
from fimaq_deploy.calibration.learning.measurements import BlockContext
from fimaq_deploy.calibration.learning.objectives import OBJECTIVES, HeadDivergence, Objective
from fimaq_deploy.recipe import Loss, Reconstruction

N, TOKENS, CHANNELS, CLASSES, BATCH = 10, 3, 4, 5, 4
TWO_PARTS = {"dplr", "feature", "divergence"}


class Toy:
    """A block output of 3 tokens, a suffix of one hidden layer, and a quantized block that is off by noise."""

    def __init__(self, loss: str = "dplr", **settings: object) -> None:
        torch.manual_seed(0)
        hidden = nn.Sequential(nn.Flatten(1), nn.Linear(TOKENS * CHANNELS, 8), nn.Tanh()).requires_grad_(False)
        last = nn.Linear(8, CLASSES).requires_grad_(False)
        self.z = torch.randn(N, TOKENS, CHANNELS)
        self.noise = 0.1 * torch.randn(N, TOKENS, CHANNELS)
        self.store = ActivationStore()
        self.context = BlockContext(
            self.z,
            last(hidden(self.z)),
            lambda x: last(hidden(x)),
            hidden,
            Reconstruction(loss=loss, rank=2, temperature=2.0, **settings),
            self.store,
        )

    @property
    def output(self) -> Tensor:
        return self.z + self.noise

    def outputs(self, count: int) -> Iterator[Tensor]:
        yield from self.output[:count].split(BATCH)

    @property
    def d(self) -> Tensor:
        return self.noise.flatten(1)

    def g(self) -> Tensor:
        """Gradient of every sample's own divergence, one sample after another."""
        rows = []
        for output, reference in zip(self.output, self.context.logits, strict=True):
            leaf = output[None].clone().requires_grad_()
            fisher.kl_divergence(self.context.suffix(leaf), reference[None], 2.0).backward()
            rows.append(leaf.grad.flatten())
        return torch.stack(rows)


def refreshed(toy: Toy, loss: str) -> Objective:
    objective = OBJECTIVES[loss](toy.context)
    with torch.no_grad():
        objective.refresh(toy.outputs)
    return objective


def test_every_loss_of_the_recipe_has_an_objective() -> None:
    assert set(OBJECTIVES) == set(get_args(Loss))


@pytest.mark.parametrize("loss", sorted(set(OBJECTIVES) - {"mse"}))
def test_parts_restart_at_one_after_a_refresh(loss: str) -> None:
    toy = Toy(loss)
    cost = refreshed(toy, loss).cost(toy.output, torch.arange(N)).item()
    assert cost == pytest.approx(2 if loss in TWO_PARTS else 1, rel=1e-4)


@pytest.mark.parametrize("loss", sorted(OBJECTIVES))
def test_the_cost_is_zero_without_a_deviation_and_its_gradient_is_finite(loss: str) -> None:
    toy = Toy(loss)
    objective = refreshed(toy, loss)
    output = toy.z.clone().requires_grad_()
    cost = objective.cost(output, torch.arange(N))
    assert cost.item() == pytest.approx(0, abs=1e-5)
    cost.backward()
    assert output.grad.isfinite().all()


@pytest.mark.parametrize("loss", sorted(OBJECTIVES))
def test_a_minibatch_in_any_order_uses_its_own_measurements(loss: str) -> None:
    toy = Toy(loss)
    objective = refreshed(toy, loss)
    index = torch.tensor([7, 2, 9])
    together = objective.cost(toy.output[index], index).item()
    alone = [objective.cost(toy.output[i : i + 1], torch.tensor([i])).item() for i in index.tolist()]
    assert together == pytest.approx(sum(alone) / 3, rel=1e-4)


@pytest.mark.parametrize("loss", sorted(OBJECTIVES))
def test_a_step_along_the_gradient_lowers_the_cost(loss: str) -> None:
    toy = Toy(loss)
    objective = refreshed(toy, loss)
    output = toy.output.requires_grad_()
    cost = objective.cost(output, torch.arange(N))
    (slope,) = torch.autograd.grad(cost, output)
    lower = objective.cost(output - 0.05 * cost.detach() / slope.square().sum() * slope, torch.arange(N))
    assert lower < cost


@pytest.mark.parametrize("loss", sorted(OBJECTIVES))
def test_stored_measurements_are_given_back(loss: str) -> None:
    toy = Toy(loss)
    refreshed(toy, loss).release()
    assert toy.store.resident_bytes == 0


def test_mse_needs_no_measurement() -> None:
    toy = Toy("mse")
    assert OBJECTIVES["mse"].refreshes == 0
    cost = OBJECTIVES["mse"](toy.context).cost(toy.output, torch.arange(N))
    assert cost.item() == pytest.approx(toy.d.square().sum(1).mean().item())


def test_dplr_is_the_published_sum_of_two_parts_over_their_starts() -> None:
    toy = Toy("dplr", low_rank_weight=0.7, diagonal_weight=0.2)
    objective = OBJECTIVES["dplr"](toy.context)
    assert objective.refreshes == 2
    gradients, deviations = [], []
    for scale in (1.0, 0.5):
        toy.noise = toy.noise * scale
        gradients.append(toy.g().abs().mean(0))
        deviations.append(toy.d.abs().mean(0))
        with torch.no_grad():
            objective.refresh(toy.outputs)
    factor = fisher.low_rank_factor(torch.stack(gradients), torch.stack(deviations))
    start = fisher.low_rank(toy.d, factor), fisher.diagonal(toy.d, gradients[-1])
    index = torch.tensor([1, 4, 5])
    moved = toy.z[index] + 0.3 * torch.randn(3, TOKENS, CHANNELS)
    d = (moved - toy.z[index]).flatten(1)
    low_rank, diagonal = fisher.low_rank(d, factor), fisher.diagonal(d, gradients[-1])
    expected = 0.7 * low_rank / start[0] + 0.2 * diagonal / start[1]
    torch.testing.assert_close(objective.cost(moved, index), expected, rtol=1e-3, atol=1e-5)
    parts = OBJECTIVES["low_rank"], OBJECTIVES["diag"]
    for kind, loss, first in zip(parts, (low_rank, diagonal), start, strict=True):
        objective.__class__ = kind
        torch.testing.assert_close(objective.cost(moved, index), loss / first, rtol=1e-3, atol=1e-5)


def test_brecq_uses_the_squared_gradient_of_each_sample() -> None:
    toy = Toy("brecq")
    objective, g = refreshed(toy, "brecq"), toy.g()
    moved = toy.z[2:4] + 0.2
    expected = fisher.brecq((moved - toy.z[2:4]).flatten(1), g[2:4]) / fisher.brecq(toy.d, g)
    torch.testing.assert_close(objective.cost(moved, torch.tensor([2, 3])), expected, rtol=1e-3, atol=1e-5)


def test_least_squares_fits_all_samples_once() -> None:
    toy = Toy("least_squares")
    objective = refreshed(toy, "least_squares")
    fit = fisher.LeastSquaresFit()
    fit.add(toy.d, toy.g())
    moved = toy.z[:2] + 0.2
    expected = fisher.least_squares((moved - toy.z[:2]).flatten(1), *fit.estimate())
    expected = expected / fisher.least_squares(toy.d, *fit.estimate())
    torch.testing.assert_close(objective.cost(moved, torch.arange(2)), expected, rtol=1e-3, atol=1e-5)


def test_feature_aligns_the_penultimate_feature() -> None:
    toy = Toy("feature", diagonal_weight=0.0)
    objective = refreshed(toy, "feature")
    moved = toy.z + 0.2
    error = (toy.context.features(moved) - toy.context.features(toy.z)).square().sum(1).mean()
    start = (toy.context.features(toy.output) - toy.context.features(toy.z)).square().sum(1).mean()
    torch.testing.assert_close(objective.cost(moved, torch.arange(N)), error / start)


def test_the_head_follows_the_divergence_of_the_class_probabilities() -> None:
    toy = Toy()
    head = HeadDivergence(toy.context)
    assert head.refreshes == 0
    expected = fisher.kl_divergence(toy.context.suffix(toy.output), toy.context.logits, 2.0)
    torch.testing.assert_close(head.cost(toy.output, torch.arange(N)), expected)


@pytest.mark.parametrize("loss", ["diag", "low_rank", "dplr", "least_squares"])
def test_statistics_over_images_come_from_a_sample_of_them(loss: str) -> None:
    together = 6 if loss == "least_squares" else 12  # two measurements share them
    few, all_images = Toy(loss, fisher_images=together, batch_size=2), Toy(loss)
    seen: list[int] = []

    def outputs(count: int) -> Iterator[Tensor]:
        seen.append(count)
        return few.outputs(count)

    objective = OBJECTIVES[loss](few.context)
    with torch.no_grad():
        objective.refresh(outputs)
    assert seen == [6]
    index = torch.arange(N)
    assert objective.cost(few.output, index) != refreshed(all_images, loss).cost(all_images.output, index)


@pytest.mark.parametrize("loss", sorted(OBJECTIVES))
def test_a_block_without_error_can_be_measured(loss: str) -> None:
    toy = Toy(loss)
    toy.noise = torch.zeros_like(toy.noise)
    cost = refreshed(toy, loss).cost(toy.output, torch.arange(N))
    assert cost.isfinite()
