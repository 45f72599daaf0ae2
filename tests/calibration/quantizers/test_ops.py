"""The three operators against the obvious loop."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from fimaq_deploy.calibration.quantizers import ops

HALVES = torch.tensor([-2.5, -1.5, -0.5, 0.5, 1.5, 2.5])


def test_halves_go_to_the_even_integer() -> None:
    found = ops.quantize_dequantize(HALVES, torch.tensor(1.0), 0, -128, 127)
    assert found.tolist() == [-2, -2, 0, 0, 2, 2]


@pytest.mark.parametrize(("zero_point", "low", "high"), [(0, -128, 127), (7, 0, 255), (3, 0, 15), (0, -4, 3)])
def test_values_are_rounded_shifted_and_clamped(zero_point: int, low: int, high: int) -> None:
    x, scale = torch.randn(500, generator=torch.Generator().manual_seed(0)) * 8, 0.125
    found = ops.quantize_dequantize(x, torch.tensor(scale), zero_point, low, high)
    expected = [(min(max(round(v / scale) + zero_point, low), high) - zero_point) * scale for v in x.tolist()]
    assert found.tolist() == expected


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_weight_has_a_scale_for_each_place_of_its_axis(axis: int) -> None:
    q = torch.arange(-12, 12, dtype=torch.int8).view(2, 3, 4)
    scale = torch.tensor([0.5, 0.25, 0.125, 2.0][: q.shape[axis]])
    found = ops.dequantize_weight(q, scale, axis)
    assert found.dtype == torch.float32
    for place in itertools.product(*map(range, q.shape)):
        assert found[place] == float(q[place]) * float(scale[place[axis]])


def test_a_block_of_inputs_shares_a_scale() -> None:
    q = torch.arange(-8, 8, dtype=torch.int8).view(8, 2)
    scale = torch.tensor([[0.5, 1.0], [2.0, 4.0]])
    found = ops.dequantize_weight_blocked(q, scale, 4)
    for k, n in np.ndindex(8, 2):
        assert found[k, n] == float(q[k, n]) * float(scale[k // 4, n])


def test_they_are_traced_with_shapes_alone() -> None:
    """What an exporter sees."""
    x, q, scale = torch.empty(2, 3, device="meta"), torch.empty(4, 3, device="meta", dtype=torch.int8), torch.ones(4)
    assert ops.quantize_dequantize(x, scale[0].to("meta"), 0, -128, 127).shape == (2, 3)
    weight = ops.dequantize_weight(q, scale.to("meta"), 0)
    assert weight.shape == (4, 3) and weight.dtype == torch.float32
    assert ops.dequantize_weight_blocked(q, torch.ones(2, 3, device="meta"), 2).shape == (4, 3)
