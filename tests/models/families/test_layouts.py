"""Rows in another order are the same numbers: each layout against the projection that it was made of."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from fimaq_deploy.models.families.layouts import grouped_rows, halves, in_halves, reordered, swapped_halves

WIDTH, HEADS, SIZE = 6, 2, 4


def linear(outputs: int, *, bias: bool = True) -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(WIDTH, outputs, bias=bias).requires_grad_(False)


def inputs() -> Tensor:
    return torch.randn(3, 5, WIDTH, generator=torch.Generator().manual_seed(1))


def heads_of(qkv: nn.Linear, x: Tensor) -> tuple[Tensor, ...]:
    """q, k and v, each (3, 5, heads, size)."""
    return qkv(x).unflatten(-1, (3, HEADS, SIZE)).unbind(2)


def test_halves_put_the_first_of_each_pair_in_front() -> None:
    assert halves(8).tolist() == [0, 2, 4, 6, 1, 3, 5, 7]
    assert halves(2).tolist() == [0, 1]


@pytest.mark.parametrize("bias", [True, False])
def test_a_projection_in_halves_reorders_q_and_k_and_leaves_v(bias: bool) -> None:
    qkv, x = linear(3 * HEADS * SIZE, bias=bias), inputs()
    made, _ = in_halves(qkv, HEADS, (nn.Identity(), nn.Identity()))
    (q, k, v), (new_q, new_k, new_v) = heads_of(qkv, x), heads_of(made, x)
    order = halves(SIZE)
    torch.testing.assert_close(new_q, q[..., order])
    torch.testing.assert_close(new_k, k[..., order])
    torch.testing.assert_close(new_v, v)
    torch.testing.assert_close(new_q @ new_k.mT, q @ k.mT)


def test_norms_of_q_and_k_follow_the_order_and_the_models_own_stay() -> None:
    norms = nn.LayerNorm(SIZE), nn.RMSNorm(SIZE)
    nn.init.normal_(norms[0].weight)
    nn.init.normal_(norms[0].bias)
    nn.init.normal_(norms[1].weight)
    before = [{name: one.clone() for name, one in norm.state_dict().items()} for norm in norms]
    _, made = in_halves(linear(3 * HEADS * SIZE), HEADS, norms)
    x, order = torch.randn(7, SIZE), halves(SIZE)
    for own, new, state in zip(norms, made, before, strict=True):
        torch.testing.assert_close(new(x[:, order]), own(x)[:, order])
        assert all(torch.equal(one, state[name]) for name, one in own.state_dict().items())


@pytest.mark.parametrize("bias", [True, False])
def test_rows_may_be_reordered_dropped_and_repeated(bias: bool) -> None:
    layer, x = linear(4, bias=bias), inputs()
    before, rows = layer.weight.clone(), torch.tensor([3, 0, 0, 1, 3])
    made = reordered(layer, rows)
    torch.testing.assert_close(made(x), layer(x)[..., rows])
    assert made.out_features == 5 and (made.bias is not None) == bias
    assert torch.equal(layer.weight, before) and layer.out_features == 4


def test_swapped_halves() -> None:
    layer, x = linear(8), inputs()
    first, second = layer(x).chunk(2, -1)
    torch.testing.assert_close(swapped_halves(layer)(x), torch.cat((second, first), -1))


@pytest.mark.parametrize("groups", [1, 2, 3])
def test_a_head_that_several_share_stands_once_for_each(groups: int) -> None:
    layer, x = linear(HEADS * SIZE), inputs()
    expected = layer(x).unflatten(-1, (HEADS, SIZE)).repeat_interleave(groups, -2).flatten(-2)
    torch.testing.assert_close(grouped_rows(layer, HEADS, groups)(x), expected)


def test_one_group_is_the_layer_itself() -> None:
    layer = linear(HEADS * SIZE)
    assert grouped_rows(layer, HEADS, 1) is layer
