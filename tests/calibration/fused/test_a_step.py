"""A learning step with kernels is the step in torch's operators, for every block and everything that it learns."""

from __future__ import annotations

from collections.abc import Callable
from statistics import median

import pytest
import torch
from fixtures.both_ways import HERE, Result, by_kernels, learn, random_state, set_random_state
from torch import Tensor

from fimaq_deploy.calibration.learning.reconstruct import BlockLearner

pytest.importorskip("triton", reason="Triton comes with torch's CUDA builds")
Step = Callable[[], Result]


def taken(learner: BlockLearner, step: Step) -> tuple[Result, list[Tensor | None]]:
    """A step's results and gradients; it can be taken again with the same random numbers."""
    state = random_state()
    loss, output = step()
    gradients = [leaf.grad for leaf in learner._leaves]
    for leaf in learner._leaves:
        leaf.grad = None
    set_random_state(state)
    return (loss.detach(), output.detach()), gradients


def apart(one: Tensor, other: Tensor) -> float:
    """The norm of their difference, relative to the other's."""
    return float((one.float() - other.float()).norm() / other.float().norm().clamp(min=1e-6))


def distances(one: list[Tensor | None], other: list[Tensor | None]) -> list[float]:
    assert [each is None for each in one] == [each is None for each in other]
    return [apart(a, b) for a, b in zip(one, other, strict=True) if a is not None and b is not None]


@pytest.mark.parametrize(
    ("model", "preset"),
    [
        ("vit", "w3a3"),
        ("swin", "w4a16"),
        *(pytest.param("vit", preset, marks=pytest.mark.slow) for preset in ("w8a8", "w4a16", "nvfp4")),
        *(pytest.param("swin", preset, marks=pytest.mark.slow) for preset in ("w3a3", "w8a8", "nvfp4")),
    ],
)
def test_losses_outputs_and_gradients_are_torchs(model: str, preset: str) -> None:
    outputs: list[float] = []
    gradients: list[float] = []

    def both(learner: BlockLearner, step: Step) -> Result:
        with by_kernels(learner):
            found, fused = taken(learner, step)
        expected, plain = taken(learner, step)
        outputs.extend(apart(*each) for each in zip(found, expected, strict=True))
        gradients.extend(distances(fused, plain))
        return step()

    learn(model, preset, both)
    assert len(outputs) > 10 and max(outputs) < 1e-4
    assert len(gradients) > 50 and max(gradients) < 1e-2


@pytest.mark.slow
@pytest.mark.parametrize("model", ["vit", "swin"])
def test_in_bfloat16_they_are_no_further_from_float32(model: str) -> None:
    ours: list[float] = []
    torchs: list[float] = []

    def all_ways(learner: BlockLearner, step: Step) -> Result:
        with by_kernels(learner):
            (_, found), fused = taken(learner, step)
        (_, plain), lowered = taken(learner, step)
        with torch.autocast(HERE.type, enabled=False):
            (_, expected), exact = taken(learner, step)
        ours.extend([apart(found, expected), *distances(fused, exact)])
        torchs.extend([apart(plain, expected), *distances(lowered, exact)])
        return step()

    learn(model, "w4a4", all_ways, "reconstruction.precision=bfloat16")
    # Triton's interpreter cuts off the digits that a GPU rounds.
    assert 0 < median(ours) < 1.25 * median(torchs)
