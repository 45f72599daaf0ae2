"""The kernel itself, on a GPU or by Triton's interpreter, against torch's operators on the CPU."""

from __future__ import annotations

import copy
from collections.abc import Callable
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from fimaq_deploy.calibration.device import of
from fimaq_deploy.calibration.learning.minibatches import Rows
from fimaq_deploy.calibration.learning.objectives import Objective
from fimaq_deploy.calibration.learning.reconstruct import BlockLearner
from fimaq_deploy.calibration.learning.scale_search import search_stage
from fimaq_deploy.calibration.network.attentions import attention_tokens
from fimaq_deploy.calibration.network.plan import make_plan
from fimaq_deploy.calibration.network.quantized_copy import quantized_copy, stages_of
from fimaq_deploy.calibration.quantizers.layers import enable_quantization
from fimaq_deploy.target import find_target

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
Make = Callable[..., Any]


@pytest.fixture
def fused() -> ModuleType:
    pytest.importorskip("triton", reason="Triton comes with torch's CUDA builds")
    from fimaq_deploy.calibration.fused import rows as fused

    return fused


def seeded(number: int = 3) -> None:
    torch.manual_seed(number)


def kept(shape: tuple[int, ...], share: float) -> Tensor:
    """As the device draws them behind `seeded`."""
    seeded()
    return (torch.rand((*shape[:-1], 1), device=DEVICE) < share).cpu()


def mixed(fused: ModuleType, sources: list[tuple[Tensor, Tensor | None]], share: float) -> Tensor:
    there = [(rows.to(DEVICE), where if where is None else where.to(DEVICE)) for rows, where in sources]
    seeded()
    found: Tensor = fused.mixed(*there, share)
    return found.cpu()


@pytest.mark.parametrize("shape", [(9, 7, 33), (6, 5, 4, 3), (5, 2, 6, 1), (8, 12), (4, 3, 2500), (3, 2, 384)])
@pytest.mark.parametrize("share", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("arrived", [(False, False), (True, False), (False, True), (True, True)])
def test_rows_are_those_of_lerp(
    fused: ModuleType, shape: tuple[int, ...], share: float, dtype: torch.dtype, arrived: tuple[bool, bool]
) -> None:
    seeded(0)
    stored = [torch.randn(shape).to(dtype) for _ in range(2)]
    index = torch.randperm(shape[0])[:3]
    taken = [each[index] for each in stored]
    expected = torch.lerp(*taken, kept(taken[0].shape, share).to(dtype))
    alone = zip(stored, taken, arrived, strict=True)
    sources = [(rows, None) if here else (every, index) for every, rows, here in alone]
    found = mixed(fused, sources, share)
    assert found.dtype is dtype and torch.equal(found, expected)
    if share == 0.4 and len(expected.flatten(0, -2)) > 5:
        assert any((found == each).all(-1).any() for each in taken)
        assert not any(torch.equal(found, each) for each in taken)


def test_only_the_row_that_is_taken_is_read(fused: ModuleType) -> None:
    """What lerp would make NaN of stays what it is."""
    rough, fine = torch.full((4, 6, 8), float("inf")), torch.arange(4 * 6 * 8.0).view(4, 6, 8)
    index = torch.tensor([2, 0])
    found, exact = mixed(fused, [(rough, index), (fine, index)], 0.5), kept((2, 6, 8), 0.5)
    assert torch.equal(found, torch.where(exact, fine[index], rough[index])) and exact.any() and not exact.all()


@pytest.fixture
def learner(tiny_vit: Make, random_images: Make, quick_recipe: Make) -> Make:
    """Makes the learner of a block of a tiny ViT, the same every time. ahead: its inputs are read in advance."""
    seeded(0)
    settings = {"qdrop": 0.5, "iterations": 3, "rounding": "straight_through"}
    model, images, recipe = tiny_vit(), random_images(8), quick_recipe(reconstruction=settings)
    plan = make_plan(model, recipe, find_target("onnxruntime-cpu"), attention_tokens(model, images[:1]))
    stages = stages_of(quantized_copy(model, plan))
    with torch.no_grad():
        exact = stages[0].module(images)
        rough = exact + 0.05 * torch.randn(exact.shape)
        z = stages[1].module(exact)
        search_stage(stages[1].module, [rough], 16)

    def make(ahead: bool = False) -> BlockLearner:
        inputs = [Rows(each.to(DEVICE), torch.device(DEVICE), ahead=ahead) for each in (exact, rough)]
        stage = copy.deepcopy(stages[1].module).to(DEVICE)
        enable_quantization(stage, True)
        objective = Objective(SimpleNamespace(z=z.to(DEVICE)))  # type: ignore[arg-type]
        seeded()
        return BlockLearner(stage, objective, inputs, recipe.reconstruction, recordable=False)

    return make


@pytest.fixture
def fusing(fused: ModuleType, monkeypatch: pytest.MonkeyPatch) -> Callable[[bool], None]:
    """Whether the device takes kernels from now on. A CPU runs them in the interpreter."""
    return lambda fuses: monkeypatch.setattr(type(of(torch.device(DEVICE))), "fuses", fuses)


@pytest.mark.parametrize("ahead", [False, True])
def test_a_block_reads_the_same_rows(learner: Make, fusing: Callable[[bool], None], ahead: bool) -> None:
    index = torch.tensor([5, 1, 2], device=DEVICE)
    fusing(False)
    expected = learner(ahead)._mixed(index)
    fusing(True)
    assert torch.equal(learner(ahead)._mixed(index), expected)


def test_a_block_learns_the_same_from_kernels(learner: Make, fusing: Callable[[bool], None]) -> None:
    def learned(fuses: bool) -> tuple[Tensor, Tensor]:
        fusing(fuses)
        block = learner()
        block.learn()
        weights = [weight.integers().flatten() for weight in block.weights]
        return torch.cat(weights), torch.stack([each.scale for each in block.quantizers])

    (integers, scales), (expected, expected_scales) = learned(True), learned(False)
    assert (integers != expected).float().mean() < 0.01  # sums in another order, so that hardly any differ
    torch.testing.assert_close(scales, expected_scales, rtol=1e-3, atol=0)
