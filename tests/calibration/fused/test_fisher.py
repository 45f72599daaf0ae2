"""The kernels themselves, on a GPU or by Triton's interpreter, against the formulas in torch's operators on the CPU."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

from fimaq_deploy.calibration.device import of
from fimaq_deploy.calibration.learning import fisher
from fimaq_deploy.calibration.learning.activations import ActivationStore
from fimaq_deploy.calibration.learning.gradients import suffix_of
from fimaq_deploy.calibration.learning.measurements import BlockContext
from fimaq_deploy.calibration.learning.minibatches import Rows
from fimaq_deploy.calibration.learning.objectives import OBJECTIVES
from fimaq_deploy.calibration.learning.reconstruct import BlockLearner
from fimaq_deploy.calibration.learning.scale_search import search_stage
from fimaq_deploy.calibration.network.attentions import attention_tokens
from fimaq_deploy.calibration.network.plan import make_plan
from fimaq_deploy.calibration.network.quantized_copy import quantized_copy, stages_of
from fimaq_deploy.calibration.quantizers.layers import enable_quantization, quantized_layers
from fimaq_deploy.target import find_target

Make = Callable[..., Any]
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
SETS = 9
WEIGHTS = 0.7, 0.3
KINDS = {"dplr": {"low_rank", "diagonal"}, "low_rank": {"low_rank"}, "diag": {"diagonal"}, "mse": {"plain"}}


@pytest.fixture
def fused() -> ModuleType:
    pytest.importorskip("triton", reason="Triton comes with torch's CUDA builds")
    from fimaq_deploy.calibration.fused import fisher as fused

    return fused


class Minibatch:
    """Outputs (B, ...), a fifth of them without a deviation, and what a cost is made of."""

    def __init__(self, shape: tuple[int, ...], columns: int = 3, dtype: torch.dtype = torch.float32) -> None:
        torch.manual_seed(0)
        self.z = torch.randn(SETS, *shape[1:]).to(dtype).float()
        self.index = torch.randint(SETS, shape[:1])
        deviation = 0.1 * torch.randn(shape) * (torch.rand(shape) > 0.2)
        self.output = (self.z[self.index] + deviation).to(dtype).requires_grad_()
        size = self.z[0].numel()
        self.factor, self.curvature = torch.randn(size, columns), torch.rand(size)
        self.starts = torch.tensor([3.7, 0.6])

    @property
    def d(self) -> Tensor:
        return (self.output.float() - self.z[self.index]).flatten(1)

    def expected(self, kind: str) -> Tensor:
        d = self.d
        low_rank = WEIGHTS[0] * fisher.low_rank(d, self.factor) / self.starts[0]
        diagonal = WEIGHTS[1] * fisher.diagonal(d, self.curvature) / self.starts[1]
        costs = {"low_rank": low_rank, "diagonal": diagonal, "plain": fisher.mse(d)}
        return torch.stack([costs[each] for each in sorted(KINDS[kind])]).sum()

    def found(self, fused: ModuleType, kind: str, *, gathered: bool = True) -> tuple[Tensor, Tensor]:
        """The cost and the gradient that 1.3 of it send back."""
        factor, curvature, starts, z, index = (
            each.to(DEVICE) for each in (self.factor, self.curvature, self.starts, self.z, self.index)
        )
        output = self.output.detach().to(DEVICE).requires_grad_()
        parts = {
            "low_rank": (factor, starts[0], WEIGHTS[0]),
            "diagonal": (curvature, starts[1], WEIGHTS[1]),
            "plain": fused.PLAIN,
        }
        taken = {"diagonal" if each == "plain" else each: parts[each] for each in KINDS[kind]}
        rows = (z, index) if gathered else (z[index], None)
        cost = fused.cost(output, *rows, **taken)
        (gradient,) = torch.autograd.grad(cost * 1.3, output)
        return cost.detach().cpu(), gradient.cpu()


def assert_is_torch_s(fused: ModuleType, batch: Minibatch, kind: str, **how: bool) -> None:
    expected = batch.expected(kind)
    (slope,) = torch.autograd.grad(expected * 1.3, batch.output)
    cost, gradient = batch.found(fused, kind, **how)
    assert cost.dtype == torch.float32 and gradient.dtype == batch.output.dtype
    torch.testing.assert_close(cost, expected.detach(), rtol=1e-5, atol=0)
    # Sums in another order; the last digit of halves.
    tolerance = 1e-5 if slope.dtype == torch.float32 else 1e-2
    torch.testing.assert_close(gradient, slope, rtol=tolerance, atol=1e-5 * slope.abs().max().item())
    same = batch.d.reshape(batch.output.shape) == 0
    assert same.any() and not gradient[same].any(), "the sign of zero is zero"


SHAPES = [(1, 40), (2, 7, 33), (5, 512), (4, 3, 20, 30), (6, 1025)]


@pytest.mark.parametrize("kind", sorted(KINDS))
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("gathered", [True, False])
def test_cost_and_gradient_are_those_of_torch(
    fused: ModuleType, kind: str, shape: tuple[int, ...], gathered: bool
) -> None:
    assert_is_torch_s(fused, Minibatch(shape), kind, gathered=gathered)


@pytest.mark.parametrize("columns", [1, 2, 5, 8, 9, 21])
def test_a_factor_of_any_rank(fused: ModuleType, columns: int) -> None:
    batch = Minibatch((3, 700), columns)
    assert_is_torch_s(fused, batch, "dplr")
    row_by_row = batch.found(fused, "dplr")
    batch.factor = batch.factor.t().contiguous().t()
    for one, other in zip(batch.found(fused, "dplr"), row_by_row, strict=True):
        assert torch.equal(one, other), "however it lies in memory"


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_halves_are_computed_as_floats(fused: ModuleType, kind: str) -> None:
    assert_is_torch_s(fused, Minibatch((5, 600), dtype=torch.bfloat16), kind)


def test_outputs_in_any_order_of_memory(fused: ModuleType) -> None:
    batch = Minibatch((4, 3, 20, 30))
    batch.output = batch.output.detach().to(memory_format=torch.channels_last).requires_grad_()
    assert_is_torch_s(fused, batch, "dplr")


def test_more_sums_than_are_added_up_at_a_time(fused: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fused, "_SUMS", 8)
    assert_is_torch_s(fused, Minibatch((11, 60), 5), "dplr")


def test_the_same_call_gives_the_same_bits(fused: ModuleType) -> None:
    batch = Minibatch((6, 1500), 5)
    one, other = (batch.found(fused, "dplr") for _ in range(2))
    assert torch.equal(one[0], other[0]) and torch.equal(one[1], other[1])


def test_columns_of_zeros_change_nothing(fused: ModuleType) -> None:
    batch = Minibatch((5, 600), 2)
    alone = batch.found(fused, "dplr")
    batch.factor = torch.nn.functional.pad(batch.factor, (0, 3))
    for one, other in zip(batch.found(fused, "dplr"), alone, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=0)


def test_rows_of_other_outputs_are_refused(fused: ModuleType) -> None:
    for rows, index in [(torch.zeros(4, 3), None), (torch.zeros(4, 5), torch.zeros(2, dtype=torch.int64))]:
        with pytest.raises(ValueError, match="do not deviate"):
            fused.cost(torch.zeros(3, 5), rows, index, diagonal=fused.PLAIN)


@pytest.mark.parametrize("ahead", [False, True])
@pytest.mark.parametrize(
    "loss",
    [
        "dplr",
        *(pytest.param(loss, marks=pytest.mark.slow) for loss in ("low_rank", "diag", "mse", "feature", "divergence")),
    ],
)
def test_a_block_learns_the_same(
    loss: str,
    ahead: bool,
    fused: ModuleType,
    tiny_vit: Make,
    random_images: Make,
    quick_recipe: Make,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings = {"loss": loss, "iterations": 6, "rank": 2, "batch_size": 6, "rounding": "adaround", "qdrop": 0.0}
    recipe = quick_recipe(reconstruction=settings)
    images = random_images(16)

    def learned(at_once: int) -> tuple[list[Tensor], list[Tensor]]:
        """The errors of its minibatches, and its weights."""
        torch.manual_seed(0)
        model = tiny_vit()
        twin = quantized_copy(
            model, make_plan(model, recipe, find_target("onnxruntime-cpu"), attention_tokens(model, images[:1]))
        ).to(DEVICE)
        stages = stages_of(twin)
        module = stages[1].module
        with torch.no_grad(), ActivationStore() as store:
            inputs = stages[0].module(images.to(DEVICE))
            z = module(inputs)
            suffix = suffix_of(stages[2:])
            rows = Rows(z, DEVICE, ahead=ahead), Rows(suffix(z), DEVICE)
            context = BlockContext(*rows, suffix, suffix, recipe.reconstruction, store)
            search_stage(module, [inputs], 16)
            enable_quantization(module, True)
            objective = OBJECTIVES[loss](context)
            learner = BlockLearner(module, objective, (inputs, inputs), recipe.reconstruction, at_once, False)
            learner.learn()
            objective.release()
        weights = [layer.weight_quantizer.integers().cpu() for _, layer in quantized_layers(module)]
        return [error.cpu() for _, (error, _) in learner.watched], weights

    at_once = 6 if ahead else 4
    place = type(of(DEVICE))
    monkeypatch.setattr(place, "fuses", False)
    by_operators = learned(at_once)
    monkeypatch.setattr(place, "fuses", True)
    by_kernels = learned(at_once)
    assert len(by_kernels[0]) == 6
    torch.testing.assert_close(by_kernels[0], by_operators[0], rtol=1e-3, atol=1e-6)
    for one, other in zip(by_kernels[1], by_operators[1], strict=True):
        assert (one != other).float().mean() < 0.01
