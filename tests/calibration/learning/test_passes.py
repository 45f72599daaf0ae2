"""Minibatches that pass together give the numbers that each gives alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from fimaq_deploy.calibration.learning.batches import relative_error, run_batches
from fimaq_deploy.calibration.learning.passes import error_of_passes, minibatch_outputs

Make = Callable[..., Any]


def alone(module: torch.nn.Module, inputs: Tensor, size: int) -> list[Tensor]:
    return list(run_batches(module, inputs, size))


@pytest.mark.parametrize(("count", "batch_size", "calls"), [(24, 4, 1), (24, 8, 1), (22, 4, 6), (21, 7, 3)])
def test_together_and_alone_are_equal(tiny_vit: Make, count: int, batch_size: int, calls: int) -> None:
    block, inputs = tiny_vit(depth=1).blocks[0], torch.randn(count, 17, 32)
    expected, seen = alone(block, inputs, batch_size), []
    handle = block.register_forward_pre_hook(lambda _module, args: seen.append(len(args[0])))
    found = list(minibatch_outputs(block, inputs, batch_size, 1000))
    assert [each.shape for each in found] == [each.shape for each in expected]
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))
    assert len(seen) == calls
    handle.remove()
    z = inputs + 0.1
    error = error_of_passes(block, inputs, z, batch_size, 1000)
    assert torch.equal(error, relative_error(iter(expected), z))
