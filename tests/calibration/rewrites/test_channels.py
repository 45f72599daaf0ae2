"""Channel statistics over batches are those of everything that was seen at once."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from fimaq_deploy.calibration.rewrites.channels import ChannelStats, equalising_factors, measure_channels


def seen(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0)) * torch.arange(1.0, shape[-1] + 1) + 2


def test_statistics_are_of_the_last_axis() -> None:
    x = seen(3, 4, 5)
    stats, rows = ChannelStats.of(x), x.double().reshape(12, 5)
    assert stats.count == 12
    for found, expected in [
        (stats.low, rows.min(0).values),
        (stats.high, rows.max(0).values),
        (stats.mean, rows.mean(0)),
        (stats.middle, (rows.min(0).values + rows.max(0).values) / 2),
        (stats.reach(), rows.abs().max(0).values),
        (stats.reach(stats.mean), (rows - rows.mean(0)).abs().max(0).values),
    ]:
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("sizes", [[1, 6], [3, 3, 1], [7]])
def test_parts_and_batches_add_up(sizes: list[int]) -> None:
    x = seen(7, 6)
    first, *rest = (ChannelStats.of(batch) for batch in x.split(sizes))
    for batch in rest:
        first = first.merged(batch)
    whole, part = ChannelStats.of(x), first.part(slice(2, 4))
    assert first.count == 7
    assert torch.equal(part.low, whole.low[2:4]) and torch.equal(part.high, whole.high[2:4])
    torch.testing.assert_close(part.mean, x.double().mean(0)[2:4])


@torch.no_grad()
def test_outputs_are_measured_over_more_images_than_one_batch_and_no_hook_stays() -> None:
    model, images = nn.Sequential(nn.Flatten(), nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)), seen(70, 1, 2, 2)
    found = measure_channels(model, images, {"hidden": model[1], "last": model[3]})
    hidden = model[1](images.flatten(1)).double()
    assert list(found) == ["hidden", "last"] and found["hidden"].count == found["last"].count == 70
    torch.testing.assert_close(found["hidden"].low, hidden.min(0).values, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found["hidden"].high, hidden.max(0).values, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found["hidden"].mean, hidden.mean(0), rtol=1e-5, atol=1e-5)
    with pytest.raises(RuntimeError):
        measure_channels(model, images[..., :1], {"hidden": model[1]})
    assert not any(module._forward_hooks for module in model.modules())


@pytest.mark.parametrize(
    ("reach", "strength", "expected"),
    [
        ([1.0, 4.0], 1.0, [0.5, 2.0]),
        ([1.0, 4.0], 0.5, [0.5**0.5, 2**0.5]),
        ([1.0, 4.0], 0.0, [1.0, 1.0]),
        ([3.0, 3.0, 3.0], 1.0, [1.0, 1.0, 1.0]),
        ([1e-6, 1e6], 1.0, [1 / 16, 16.0]),
        ([0.0, 0.0], 1.0, [1.0, 1.0]),
    ],
)
def test_factors_are_ratios_to_the_geometric_mean_within_bounds(
    reach: list[float], strength: float, expected: list[float]
) -> None:
    torch.testing.assert_close(equalising_factors(torch.tensor(reach), strength), torch.tensor(expected))
