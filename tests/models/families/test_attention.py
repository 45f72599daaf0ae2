"""Attention spelled out is torch's own, with and without a bias, and every operand passes its place."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fimaq_deploy.models.families.attention import ExplicitAttention, Operands

HEADS, SIZE, TOKENS = 2, 4, 5


def attention(scale: float | Tensor = SIZE**-0.5) -> ExplicitAttention:
    torch.manual_seed(0)
    width = HEADS * SIZE
    made = ExplicitAttention(nn.Linear(width, 3 * width), nn.Linear(width, width), HEADS, scale)  # type: ignore[arg-type]
    made.quantize()
    return made.requires_grad_(False)


def operands(batch: int = 3) -> tuple[Tensor, ...]:
    torch.manual_seed(1)
    return torch.randn(3, batch, HEADS, TOKENS, SIZE).unbind(0)


def reference(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None = None) -> Tensor:
    y = nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=bias)
    return y.transpose(1, 2).flatten(2)


def test_it_is_torchs_attention() -> None:
    q, k, v = operands()
    torch.testing.assert_close(attention().attend(q, k, v), reference(q, k, v))


def test_a_bias_is_added_to_the_scores_of_every_image() -> None:
    (q, k, v), bias = operands(), torch.randn(1, HEADS, TOKENS, TOKENS)
    torch.testing.assert_close(attention().attend(q, k, v, bias), reference(q, k, v, bias))


def test_windows_that_follow_each_other_get_a_bias_each() -> None:
    (q, k, v), bias = operands(batch=6), torch.randn(3, HEADS, TOKENS, TOKENS)
    each = [reference(q[i : i + 1], k[i : i + 1], v[i : i + 1], bias[i % 3]) for i in range(6)]
    torch.testing.assert_close(attention().attend(q, k, v, bias), torch.cat(each))


def test_heads_may_have_scales_of_their_own() -> None:
    q, k, v = operands()
    scale = torch.tensor([0.25, 3.0]).view(HEADS, 1, 1)
    got = attention(scale).attend(q, k, v)
    torch.testing.assert_close(got, reference(q * scale * SIZE**0.5, k, v))


def test_the_rows_of_a_projection_are_q_k_and_v_of_one_head_behind_the_other() -> None:
    made, x = attention(), torch.randn(2, TOKENS, HEADS * SIZE)
    for part, rows in zip(made.split(x), made.qkv(x).chunk(3, -1), strict=True):
        assert part.shape == (2, HEADS, TOKENS, SIZE)
        for head in range(HEADS):
            assert torch.equal(part[:, head], rows[..., head * SIZE : (head + 1) * SIZE])


class Doubled(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return 2 * x


@pytest.mark.parametrize("place", ["q", "k", "v", "softmax"])
def test_each_operand_passes_what_is_put_in_its_place(place: str) -> None:
    made, (q, k, v) = attention(), operands()
    quantizers: Any = Operands()
    setattr(quantizers, place, Doubled())
    made.quantize(quantizers)
    expected = reference(2 * q, k, v) if place in "qk" else 2 * reference(q, k, v)
    torch.testing.assert_close(made.attend(q, k, v), expected)
    made.quantize()
    torch.testing.assert_close(made.attend(q, k, v), reference(q, k, v))


@pytest.mark.parametrize("used", [(0, 1, 2), (0, 2)])
def test_gradients_of_q_k_and_v_meet_as_autograd_would_have_them(used: tuple[int, ...]) -> None:
    made, x = attention(), torch.randn(3, TOKENS, HEADS * SIZE)
    pulls = torch.randn(3, 3, HEADS, TOKENS, SIZE)
    found = []
    for own in (True, False):
        qkv = made.qkv(x).requires_grad_()
        if own:
            made.qkv.forward = lambda _, qkv=qkv: qkv  # type: ignore[method-assign, misc]
            parts = made.split(x)
        else:
            parts = qkv.reshape(3, TOKENS, 3, HEADS, SIZE).permute(2, 0, 3, 1, 4).unbind(0)
        sum((parts[n] * pulls[n]).sum() for n in used).backward()
        found.append((torch.stack(parts), qkv.grad))
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))
