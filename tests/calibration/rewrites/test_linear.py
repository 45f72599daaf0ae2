"""What is moved in and out of a Linear layer changes its function by exactly that."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from fimaq_deploy.calibration.rewrites.linear import absorb_shift, bias_of, qkv_rows, scale_columns, scale_rows

X = torch.randn(5, 4, generator=torch.Generator().manual_seed(0)).double()
FACTORS = torch.tensor([0.5, 2.0, -3.0, 1.5]).double()


@pytest.fixture(params=[True, False], ids=["bias", "no bias"])
def layer(request: pytest.FixtureRequest) -> nn.Linear:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Linear(4, 6, bias=request.param).double()


@pytest.fixture
def before(layer: nn.Linear) -> Tensor:
    return layer(X).detach()


@torch.no_grad()
def test_rows_are_output_channels(layer: nn.Linear, before: Tensor) -> None:
    scale_rows(layer, slice(1, 5), FACTORS)
    expected = before.clone()
    expected[:, 1:5] *= FACTORS
    torch.testing.assert_close(layer(X), expected)


@torch.no_grad()
def test_columns_are_input_channels(layer: nn.Linear, before: Tensor) -> None:
    scale_columns(layer, FACTORS)
    torch.testing.assert_close(layer(X / FACTORS), before)


@torch.no_grad()
def test_a_shift_of_the_input_goes_into_the_bias(layer: nn.Linear, before: Tensor) -> None:
    absorb_shift(layer, FACTORS)
    torch.testing.assert_close(layer(X - FACTORS), before)


@pytest.mark.parametrize("learnable", [True, False])
@torch.no_grad()
def test_a_layer_without_a_bias_gets_zeros_that_learn_as_its_weight_does(
    layer: nn.Linear, before: Tensor, learnable: bool
) -> None:
    layer.weight.requires_grad_(learnable)
    had = layer.bias
    bias = bias_of(layer)
    assert bias is layer.bias and bias is bias_of(layer) and "bias" in dict(layer.named_parameters())
    assert torch.equal(layer(X), before)
    if had is None:
        assert (bias.requires_grad, bias.dtype, bias.shape) == (learnable, torch.float64, (6,))
    else:
        assert bias is had


def test_a_fused_projection_has_q_k_and_v_in_that_order() -> None:
    assert qkv_rows(nn.Linear(4, 24)) == (slice(0, 8), slice(8, 16), slice(16, 24))
