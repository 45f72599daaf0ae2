"""Gradients from a recorded chain are those of the chain, at every block, to the last bit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fimaq_deploy.calibration.learning import chain_gradients
from fimaq_deploy.calibration.learning.chain_gradients import ChainGradients
from fimaq_deploy.calibration.learning.fisher import kl_divergence
from fimaq_deploy.calibration.learning.gradients import answer_of, divergence_gradient
from fimaq_deploy.calibration.network.quantized_copy import stages_of
from fimaq_deploy.models.families.roles import Stage

Make = Callable[..., Any]
T = 20.0


class Counted(nn.Module):
    """A stage that counts how often Python runs it."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner, self.calls = inner, 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        found: Tensor = self.inner(x)
        return found


def counted(model: nn.Module) -> list[Stage]:
    return [Stage(each.name, Counted(each.module), each.tap) for each in stages_of(model.requires_grad_(False))]


def expected_at(stages: list[Stage], position: int, output: Tensor, reference: Tensor) -> Tensor:
    plain = [Stage(each.name, each.module.inner, each.tap) for each in stages]  # type: ignore[arg-type, union-attr]
    suffix = answer_of(plain[position + 1 :], plain[position].tap)
    return divergence_gradient(suffix, output, reference, T)


def outputs_of(stages: list[Stage], images: Tensor) -> list[Tensor]:
    found, x = [], images
    for stage in stages:
        x = stage.module.inner(x)  # type: ignore[operator, union-attr]
        found.append(x)
    return found


@pytest.fixture(params=["vit", "swin"])
def model(request: pytest.FixtureRequest, tiny_vit: Make, tiny_swin: Make) -> nn.Module:
    found: nn.Module = tiny_vit() if request.param == "vit" else tiny_swin()
    return found.eval()


def test_at_every_block_with_batches_of_two_sizes(model: nn.Module, random_images: Make) -> None:
    side = model.patch_embed.img_size[0]  # type: ignore[index, union-attr]
    stages, images = counted(model), torch.randn(7, 3, side, side)
    found = outputs_of(stages, images)
    gradients = ChainGradients(stages, T, kl_divergence)
    for position, output in enumerate(found[:-1]):
        for round_ in range(2):
            noisy = output + 0.1 * torch.randn_like(output) * (1 + round_)
            for part in (slice(0, 4), slice(4, 7)):
                with torch.no_grad():
                    own = gradients.at(position, noisy[part], found[-1][part])
                assert torch.equal(own, expected_at(stages, position, noisy[part], found[-1][part]))
    # Once for each size of batches, whatever block asks.
    assert [stage.module.calls for stage in stages] == [0] + [2] * (len(stages) - 1)


def small(**settings: Any) -> list[Stage]:
    torch.manual_seed(0)
    linears = [nn.Linear(6, 6), nn.Sequential(nn.Linear(6, 6), nn.Tanh()), nn.Linear(6, 3)]
    return [Stage(str(n), Counted(each.requires_grad_(False)), **settings) for n, each in enumerate(linears)]


def check(gradients: ChainGradients, stages: list[Stage], position: int, output: Tensor, reference: Tensor) -> None:
    own = gradients.at(position, output, reference)
    assert torch.equal(own, expected_at(stages, position, output, reference))


def test_weights_that_were_moved_are_recorded_anew() -> None:
    stages, output, reference = small(), torch.randn(4, 6), torch.randn(4, 3)
    gradients = ChainGradients(stages, T, kl_divergence)
    check(gradients, stages, 0, output, reference)
    head = stages[2].module.inner
    head.weight.data = 2 * head.weight.data  # type: ignore[union-attr]
    check(gradients, stages, 1, output, reference)
    assert stages[2].module.calls == 2


def test_weights_that_changed_where_they_lie_are_those_of_now() -> None:
    stages, output, reference = small(), torch.randn(4, 6), torch.randn(4, 3)
    gradients = ChainGradients(stages, T, kl_divergence)
    check(gradients, stages, 0, output, reference)
    stages[2].module.inner.weight.mul_(2)  # type: ignore[operator, union-attr]
    check(gradients, stages, 0, output, reference)
    assert stages[2].module.calls == 1


def test_another_layout_than_the_recorded_one_is_run_through_the_stages() -> None:
    stages, reference = small(), torch.randn(4, 3)
    gradients = ChainGradients(stages, T, kl_divergence)
    check(gradients, stages, 0, torch.randn(4, 6), reference)
    check(gradients, stages, 1, torch.randn(6, 4).t(), reference)
    assert stages[2].module.calls == 2


def test_what_cannot_be_recorded_is_run_through_the_stages() -> None:
    stages, output, reference = small(), torch.randn(4, 6), torch.randn(4, 3)

    def divergence(output: Tensor, reference: Tensor, temperature: float) -> Tensor:
        loss = kl_divergence(output, reference, temperature)
        return loss * (2 if loss.item() > 0 else 1)

    gradients = ChainGradients(stages, T, divergence)
    for scale in (1, 3):
        own = gradients.at(0, scale * output, reference)
        assert torch.equal(own, 2 * expected_at(stages, 0, scale * output, reference))


@pytest.mark.parametrize("why", ["large", "tapped", "autocast"])
def test_some_chains_are_not_recorded(why: str, monkeypatch: pytest.MonkeyPatch) -> None:
    stages = small(tap=nn.Identity() if why == "tapped" else None)
    if why == "large":
        monkeypatch.setattr(chain_gradients, "WORTH_RECORDING", 4 * 6 * 2)
    output, gradients = torch.randn(4, 6), ChainGradients(stages, T, kl_divergence)
    reference = torch.randn(4, 18 if why == "tapped" else 3)
    with torch.autocast("cpu", enabled=why == "autocast"):
        for _ in range(3):
            check(gradients, stages, 0, output, reference)
    assert stages[2].module.calls == 3


def test_nothing_is_kept_of_blocks_that_are_done() -> None:
    stages, output, reference = small(), torch.randn(4, 6), torch.randn(4, 3)
    gradients = ChainGradients(stages, T, kl_divergence)
    check(gradients, stages, 0, output, reference)
    (parts,) = gradients._recorded.values()
    check(gradients, stages, 1, output, reference)
    assert set(parts._outputs) == {1} and set(parts._forward) == set(parts._back) == {1, 2}
    gradients.forget()
    assert not gradients._recorded
