"""What losses are measured on: whole batches or parts of them, gradients run through the suffix or handed in."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from fimaq_deploy.calibration.learning import measurements
from fimaq_deploy.calibration.learning.activations import ActivationStore
from fimaq_deploy.calibration.learning.gradients import divergence_gradient
from fimaq_deploy.calibration.learning.measurements import BlockContext, Held, Mean, measurement
from fimaq_deploy.calibration.learning.minibatches import Rows
from fimaq_deploy.recipe import Reconstruction

SHAPE, BATCH, HOST = (3, 4), 4, torch.device("cpu")


def context_of(count: int = 10) -> BlockContext:
    torch.manual_seed(0)
    suffix = nn.Sequential(nn.Flatten(1), nn.Linear(12, 8), nn.Tanh(), nn.Linear(8, 5)).requires_grad_(False)
    z = torch.randn(count, *SHAPE)
    rows = Rows(z, HOST), Rows(suffix(z), HOST)
    return BlockContext(*rows, suffix, suffix, Reconstruction(temperature=2.0), ActivationStore(), near=True)


def gradient_of(context: BlockContext, output: Tensor, logits: Tensor) -> Tensor:
    return divergence_gradient(context.suffix, output, logits, 2.0)


@pytest.mark.parametrize(("values", "most"), [(1, 1), (2 * 12, 2), (2**21, BATCH)])
def test_gradients_are_pulled_back_in_parts_that_fit(values: int, most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measurements, "HOST_VALUES", values)
    whole, seen = context_of(), []
    context = replace(whole, suffix=lambda x: seen.append(len(x)) or whole.suffix(x))
    output = whole.z[:BATCH] + 0.1
    g = context.gradient(slice(0, BATCH), output)
    torch.testing.assert_close(g, gradient_of(whole, output, whole.logits[:BATCH]).flatten(1))
    assert max(seen) == most and sum(seen) == BATCH


@pytest.mark.parametrize("near", [True, False])
def test_gradients_that_are_handed_in_are_those_of_the_suffix(near: bool) -> None:
    """Every time anew, with the outputs and the images of now; the last batch is smaller."""
    context = replace(context_of(), near=near)
    pulled = replace(context, pull=lambda output, reference: gradient_of(context, output, reference))
    noise = torch.randn(10, *SHAPE)

    def outputs(count: int) -> list[Tensor]:
        return list((context.z[:count] + noise[:count]).split(BATCH))

    with torch.no_grad():
        one, other = (measurement(each, 6, lambda count: iter(outputs(count))) for each in (context, pulled))
        for _ in range(3):
            expected = [each.clone() for each in one()]
            assert all(torch.equal(*pair) for pair in zip(other(), expected, strict=True))
            noise.mul_(0.5)
            assert not torch.equal(one()[0], expected[0])


def test_a_mean_is_weighted_by_the_size_of_its_batches() -> None:
    mean = Mean()
    mean.add(3, torch.tensor(1.0), torch.tensor(0.0))
    mean.add(1, torch.tensor(5.0), torch.tensor(0.0))
    assert [float(each) for each in mean.result()] == [2.0, pytest.approx(1e-20)]


def test_held_tensors_stay_where_they_are_while_their_shape_does() -> None:
    held = Held()
    held.hold(torch.zeros(2))
    first = held[0]
    held.hold(torch.ones(2))
    assert held[0] is first and first.tolist() == [1, 1]
    held.hold(torch.ones(3))
    assert held[0] is not first
