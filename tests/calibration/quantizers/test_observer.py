from __future__ import annotations

import pytest
import torch

from fimaq_deploy.calibration.quantizers.observer import Observer


def test_an_observer_keeps_the_extremes_and_a_bounded_sample() -> None:
    observer = Observer(values=1000, batches=2)
    batches = torch.randn(2, 16, 50, 24)
    for batch in batches:
        observer.add(batch)
    sample = observer.sample()
    assert sample.numel() <= 1100
    assert sample.min() == batches.min() and sample.max() == batches.max()


def test_an_observer_knows_the_second_moments_of_the_last_axis() -> None:
    observer = Observer(batches=2)
    batches = torch.randn(2, 5, 7, 6)
    for batch in batches:
        observer.add(batch)
    torch.testing.assert_close(observer.second_moments(), batches.square().mean((0, 1, 2)))


@pytest.mark.parametrize("channels", [32, 48, 96, 192, 384, 768])
@pytest.mark.parametrize("stride", [2, 3, 5, 9])
def test_a_sample_meets_every_channel(channels: int, stride: int) -> None:
    rows = 40
    observer = Observer(values=rows * channels // stride)
    observer.add(torch.arange(channels, dtype=torch.float32).expand(rows, channels))
    assert set(observer.sample().tolist()) == set(range(channels))
