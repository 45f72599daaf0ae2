from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from fimaq_deploy.calibration.learning import fisher

B, A, K = 4, 6, 3


def numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def softmax_covariance(logits: Tensor, temperature: float = 1.0) -> Tensor:
    p = (logits / temperature).softmax(0)
    return (torch.diag(p) - torch.outer(p, p)) / temperature**2


# Each loss against loops


def test_mse_is_the_mean_over_samples_of_summed_squares() -> None:
    d = numbers(B, A)
    expected = sum(d[b, i] ** 2 for b in range(B) for i in range(A)) / B
    torch.testing.assert_close(fisher.mse(d), expected)


def test_brecq_weights_every_sample_by_its_own_squared_gradient() -> None:
    d, g = numbers(B, A), numbers(B, A, seed=1)
    expected = sum(d[b, i] ** 2 * g[b, i] ** 2 for b in range(B) for i in range(A)) / B
    torch.testing.assert_close(fisher.brecq(d, g), expected)


def test_diagonal_weights_all_samples_by_the_batch_mean() -> None:
    d, g = numbers(B, A), numbers(B, A, seed=1)
    mean_abs = [sum(abs(g[b, i]) for b in range(B)) / B for i in range(A)]
    expected = sum(d[b, i] ** 2 * mean_abs[i] for b in range(B) for i in range(A)) / B
    torch.testing.assert_close(fisher.diagonal(d, g.abs().mean(0)), expected)


def low_rank(d: Tensor, gradients: Tensor, deviations: Tensor) -> Tensor:
    return fisher.low_rank(d, fisher.low_rank_factor(gradients, deviations))


def slow_low_rank(d: Tensor, gradients: Tensor, deviations: Tensor) -> Tensor:
    """mean(A (D Dᵀ)⁻¹ Aᵀ) with A = |d| Gᵀ, one sample after another and an ordinary inverse."""
    total = d.new_zeros(())
    inverse = torch.linalg.inv(deviations @ deviations.T)
    for row in d:
        a = torch.stack([sum(abs(row[i]) * g[i] for i in range(A)) for g in gradients])
        total += sum(a[k] * inverse[k, m] * a[m] for k in range(len(a)) for m in range(len(a)))
    return total / len(d)


def test_measurements_of_lower_precision_are_taken() -> None:
    """Where products are computed in bfloat16, gradients come in it and deviations may not."""
    gradients, deviations = torch.rand(2, A), torch.rand(2, A)
    found = fisher.low_rank_factor(gradients.bfloat16(), deviations)
    torch.testing.assert_close(found, fisher.low_rank_factor(gradients.bfloat16().float(), deviations))


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_low_rank_is_the_published_formula(rank: int) -> None:
    d, gradients, deviations = numbers(B, A), numbers(rank, A, seed=1).abs(), numbers(rank, A, seed=2).abs()
    torch.testing.assert_close(low_rank(d, gradients, deviations), slow_low_rank(d, gradients, deviations))


def test_low_rank_survives_measurements_that_repeat_each_other() -> None:
    d, gradients, deviations = numbers(B, A), numbers(1, A, seed=1).abs(), numbers(1, A, seed=2).abs()
    once = low_rank(d, gradients, deviations)
    twice = low_rank(d, gradients.repeat(2, 1), deviations.repeat(2, 1))
    torch.testing.assert_close(twice, once)


def test_least_squares_is_a_diagonal_plus_rank_one() -> None:
    d, h, u = numbers(B, A), numbers(A, seed=1).abs(), numbers(A, seed=2)
    expected = sum((row * h * row).sum() + (u @ row) ** 2 for row in d) / B
    torch.testing.assert_close(fisher.least_squares(d, h, u), expected)


@pytest.mark.parametrize("temperature", [1.0, 20.0])
def test_kl_divergence_is_its_definition(temperature: float) -> None:
    logits, reference = numbers(B, 5), numbers(B, 5, seed=1)
    total = 0.0
    for q_row, p_row in zip(logits, reference, strict=True):
        q = [math.exp(v / temperature) for v in q_row]
        p = [math.exp(v / temperature) for v in p_row]
        total += sum(a / sum(p) * math.log((a / sum(p)) / (b / sum(q))) for a, b in zip(p, q, strict=True))
    assert fisher.kl_divergence(logits, reference, temperature).item() == pytest.approx(total / B)
    assert fisher.kl_divergence(reference, reference, temperature).item() == pytest.approx(0)


@pytest.mark.parametrize(
    "loss",
    [
        fisher.mse,
        lambda d: fisher.brecq(d, numbers(B, A, seed=1)),
        lambda d: fisher.diagonal(d, numbers(A, seed=1).abs()),
        lambda d: low_rank(d, numbers(2, A, seed=1).abs(), numbers(2, A, seed=2).abs()),
        lambda d: fisher.least_squares(d, numbers(A, seed=1).abs(), numbers(A, seed=2)),
    ],
)
def test_every_loss_is_a_differentiable_scalar_that_is_zero_without_a_deviation(
    loss: Callable[[Tensor], Tensor],
) -> None:
    assert loss(torch.zeros(B, A, dtype=torch.float64)).item() == 0
    d = numbers(B, A).requires_grad_()
    value = loss(d)
    assert value.ndim == 0 and value > 0
    value.backward()
    # Quadratic in d: Euler's theorem.
    torch.testing.assert_close((d.grad * d).sum(), 2 * value.detach())


# What the estimates recover, for a quadratic toy loss ½ dᵀ F d with g = F d


def test_one_measurement_recovers_the_direction_of_a_rank_one_fisher() -> None:
    f = numbers(A).abs()
    measured = numbers(1, A, seed=1).abs()
    gradient = measured @ torch.outer(f, f)
    d = numbers(50, A, seed=2).abs()
    estimated = torch.stack([low_rank(row[None], gradient, measured) for row in d])
    true = (d @ f).square()
    ratio = estimated / true
    torch.testing.assert_close(ratio, ratio[:1].expand_as(ratio))
    leaf = d[:1].clone().requires_grad_()
    slope = torch.autograd.grad(low_rank(leaf, gradient, measured), leaf)[0][0]
    assert torch.cosine_similarity(slope, f, dim=0).item() == pytest.approx(1)


def test_as_many_measurements_as_ranks_recover_the_fisher_matrix_on_its_range() -> None:
    # Two directions without a common channel: everything in sight is non-negative, as the published |.| wants it.
    directions = torch.zeros(2, A, dtype=torch.float64)
    directions[0, :3], directions[1, 3:] = numbers(3).abs(), numbers(3, seed=1).abs()
    matrix = directions.T @ torch.diag(torch.tensor([3.0, 0.5], dtype=torch.float64)) @ directions
    measured = numbers(2, 2, seed=2).abs() @ directions
    d = numbers(20, A, seed=3).abs()
    estimated = low_rank(d, measured @ matrix, measured)
    torch.testing.assert_close(estimated, (d @ matrix).square().sum(1).mean())


def fit(d: Tensor, g: Tensor, batch: int = 100) -> tuple[Tensor, Tensor]:
    estimate = fisher.LeastSquaresFit()
    for start in range(0, len(d), batch):
        estimate.add(d[start : start + batch], g[start : start + batch])
    return estimate.estimate()


@pytest.mark.parametrize("batch", [1, 7, 100])
def test_least_squares_recovers_a_diagonal_fisher_signs_and_batches_regardless(batch: int) -> None:
    h = numbers(A).abs()
    d = numbers(40, A, seed=1)
    curvature, _ = fit(d, d * h, batch)
    torch.testing.assert_close(curvature, h)


def test_least_squares_recovers_a_rank_one_fisher_where_the_samples_agree() -> None:
    f = numbers(A)
    d = numbers(60, A, seed=1)
    d = d * (d @ f).sign()[:, None]
    _, direction = fit(d, torch.outer(d @ f, f))
    true = (d @ f).square().mean()
    along = (d @ direction).square().mean()
    assert torch.cosine_similarity(direction, f, dim=0).item() == pytest.approx(1)
    torch.testing.assert_close(along, true)


def test_the_fit_is_its_two_sums() -> None:
    d, g = numbers(30, A), numbers(30, A, seed=1)
    curvature, direction = fit(d, g, 8)
    for i in range(A):
        expected = (g[:, i] * d[:, i]).sum() / (d[:, i] ** 2).sum()
        assert curvature[i].item() == pytest.approx(max(expected.item(), 0))
    votes = [(g_row, (d_row @ g_row).item()) for d_row, g_row in zip(d, g, strict=True) if d_row @ g_row > 0]
    expected_u = sum(g_row * math.sqrt(v) for g_row, v in votes) / sum(v for _, v in votes)
    torch.testing.assert_close(direction, expected_u)


def test_a_block_without_error_fits_without_dividing_by_zero() -> None:
    curvature, direction = fit(torch.zeros(5, A), torch.zeros(5, A))
    assert curvature.tolist() == [0] * A and direction.tolist() == [0] * A


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_the_hessian_of_the_divergence_at_the_optimum_is_the_softmax_covariance(temperature: float) -> None:
    reference = numbers(5)
    hessian = torch.autograd.functional.hessian(
        lambda logits: fisher.kl_divergence(logits[None], reference[None], temperature), reference
    )
    torch.testing.assert_close(hessian, softmax_covariance(reference, temperature))
