"""What sorted values say of a grid's errors is what rounding every number says."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fimaq_deploy.calibration.learning import scale_search
from fimaq_deploy.calibration.learning.grid_errors import Sorted
from fimaq_deploy.calibration.learning.scale_search import search_activations
from fimaq_deploy.calibration.quantizers.fake_quant import ActivationQuantizer
from fimaq_deploy.calibration.quantizers.grid import ActivationGrid

KINDS = ("normal", "gelu", "softmax", "outliers", "few", "constant", "zero")


def rows(kind: str, seed: int, count: int = 3, numbers: int = 2000) -> Tensor:
    x = torch.randn(count, numbers, generator=torch.Generator().manual_seed(seed))
    x[:, 0] *= 30 if kind == "outliers" else 1
    values = {
        "gelu": torch.nn.functional.gelu(2 * x),
        "softmax": (3 * x).softmax(1),
        "few": (2 * x).round() / 2,  # many on the thresholds
        "constant": torch.full_like(x, 1.5),
        "zero": torch.zeros_like(x),
    }
    return values.get(kind, x)


def rounded_errors(x: Tensor, scale: Tensor, offset: Tensor, top: int) -> Tensor:
    x, scale, low = x.double()[:, None], scale.double()[..., None], -offset.double()[..., None]
    steps = torch.maximum(torch.minimum((x / scale).round(), low + top), low)
    return (steps * scale - x).square().sum(-1)


@pytest.mark.parametrize("top", [1, 3, 7, 15])
@pytest.mark.parametrize("kind", KINDS)
def test_errors_are_those_of_rounded_numbers(kind: str, top: int) -> None:
    x = rows(kind, top)
    scale = x.abs().amax(1, keepdim=True).clamp(min=1e-3) * torch.linspace(0.02, 1, 20) / top
    offset = torch.arange(20) % (top + 1) * torch.ones(3, 1)
    found, expected = Sorted(x).errors(scale, offset, top), rounded_errors(x, scale, offset, top)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-9 * float(x.square().sum()))


@settings(max_examples=25, deadline=None)
@given(
    st.sampled_from(KINDS), st.integers(0, 2**20), st.sampled_from([2, 3, 4]), st.booleans(), st.booleans(), st.data()
)
def test_a_search_finds_what_it_finds_without_sorting(
    kind: str, seed: int, bits: int, asymmetric: bool, nonnegative: bool, data: st.DataObject
) -> None:
    """Equal to the last bit, whatever goes together."""
    size = data.draw(st.sampled_from([1e-30, 1e-4, 1.0, 1e30]))
    x = rows(kind, seed) * size
    x = x.abs() if nonnegative else x
    grid, found = ActivationGrid(bits, "asymmetric" if asymmetric else "symmetric"), []
    worth = scale_search.WORTH_SORTING
    for least in (worth, 10**9):
        scale_search.WORTH_SORTING = least
        try:
            quantizers = [ActivationQuantizer(grid, nonnegative).requires_grad_(False) for _ in x]
            search_activations(quantizers, list(x), 33)
        finally:
            scale_search.WORTH_SORTING = worth
        found.append([(float(each.scale), float(each.offset)) for each in quantizers])
    assert found[0] == found[1]


@pytest.mark.parametrize("odd", [float("nan"), float("inf")])
def test_where_a_number_is_not_finite_every_candidate_is_tried(odd: float) -> None:
    x = rows("normal", 0)
    x[1, 7] = odd
    left = Sorted(x).near_best(torch.linspace(0.1, 1, 9).expand(3, 9), torch.ones(3, 9), 3)
    assert left[1].all() and not left[0].all()


def test_hardly_any_candidate_is_left() -> None:
    x = rows("normal", 5)
    left = Sorted(x).near_best(torch.linspace(0.02, 1, 64).expand(3, 64), torch.full((3, 64), 3.0), 7)
    assert left.any(1).all() and left.sum() <= 9
