"""What chains are built of, each against its formula."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fimaq_deploy.errors import UserError
from fimaq_deploy.models.families.parts import (
    Attention,
    Block,
    GatedMlp,
    Mlp,
    PackedGatedMlp,
    PostNormBlock,
    RelativeBias,
    Rotary,
    joined,
    tokens,
    with_bias,
)

WIDTH, HEADS, SIZE = 8, 2, 4


@pytest.fixture(autouse=True)
def seeded() -> Any:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


class Embedding(nn.Module):
    """A class token, positions of a 2×3 grid, and what a library may refuse."""

    def __init__(self) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, WIDTH, 4, 4)
        self.token, self.positions = torch.randn(1, 1, WIDTH), torch.randn(1, 7, WIDTH)

    def forward(self, images: Tensor) -> Tensor:
        if images.shape[-2:] != (8, 12):
            raise ValueError("the size\n  is another")
        x = self.proj(images).flatten(2).mT
        return torch.cat((self.token.expand(len(x), -1, -1), x), 1) + self.positions


def test_tokens_are_what_the_model_embeds_images_in() -> None:
    embed, images = Embedding(), torch.randn(2, 3, 8, 12)
    made = tokens(embed.proj, embed, (3, 8, 12), norm=nn.LayerNorm(WIDTH))
    torch.testing.assert_close(made(images), nn.functional.layer_norm(embed(images), (WIDTH,)))
    assert made.proj is embed.proj and not embed.proj._forward_hooks
    assert made.prefix is not None and made.prefix.shape == (1, 1, WIDTH)


def test_images_that_the_model_refuses_are_refused_in_one_line_and_leave_no_trace() -> None:
    embed = Embedding()
    with pytest.raises(UserError) as caught:
        tokens(embed.proj, embed, (3, 4, 4))
    assert str(caught.value) == "the model takes no images of (3, 4, 4): the size is another"
    assert not embed.proj._forward_hooks


def test_rotary_positions_turn_pairs_of_channels_and_leave_the_tokens_in_front() -> None:
    angles, x = torch.randn(5, SIZE // 2), torch.randn(2, HEADS, 6, SIZE)
    sin, cos = (torch.cat((one, one), -1) for one in (angles.sin(), angles.cos()))
    got = Rotary(sin, cos, prefix=1)(x)
    pairs = torch.complex(x[..., : SIZE // 2], x[..., SIZE // 2 :])
    turned = pairs[..., 1:, :] * torch.polar(torch.ones_like(angles), angles)
    assert torch.equal(got[..., 0, :], x[..., 0, :])
    torch.testing.assert_close(got[..., 1:, :], torch.cat((turned.real, turned.imag), -1))


def test_a_relative_bias_looks_every_pair_of_tokens_up() -> None:
    table, index = torch.randn(9, HEADS), torch.randint(0, 9, (5, 5))
    got = RelativeBias(table, index)()
    assert got.shape == (1, HEADS, 5, 5)
    assert all(torch.equal(got[0, :, i, j], table[index[i, j]]) for i in range(5) for j in range(5))


def test_attention_with_all_that_libraries_add() -> None:
    x, mask = torch.randn(4, 5, WIDTH), torch.randn(2, 1, 5, 5)
    norms = {name: nn.RMSNorm(SIZE) for name in ("q_norm", "k_norm")}
    bias = RelativeBias(torch.randn(9, HEADS), torch.randint(0, 9, (5, 5)))
    made = Attention(
        nn.Linear(WIDTH, 3 * WIDTH),
        nn.Linear(WIDTH, WIDTH),
        HEADS,
        **norms,  # type: ignore[arg-type]
        bias=bias,
        norm=nn.LayerNorm(WIDTH),
        gate=nn.Linear(WIDTH, WIDTH),
    )
    q, k, v = made.qkv(x).unflatten(-1, (3, HEADS, SIZE)).permute(2, 0, 3, 1, 4)
    added = bias() + mask.repeat(2, 1, 1, 1)
    y = nn.functional.scaled_dot_product_attention(norms["q_norm"](q), norms["k_norm"](k), v, attn_mask=added)
    y = made.norm(y.transpose(1, 2).flatten(2)) * made.gate(x).sigmoid()  # type: ignore[misc]
    torch.testing.assert_close(made(x, mask), made.proj(y))
    assert made.inputs == (made.qkv, made.gate) and not made.plain_scores


def test_gated_mlps_in_one_piece_and_in_two() -> None:
    x, norm, act = torch.randn(3, WIDTH), nn.LayerNorm(6), nn.SiLU()
    gate, value, fc2 = nn.Linear(WIDTH, 6), nn.Linear(WIDTH, 6), nn.Linear(6, WIDTH)
    expected = fc2(norm(act(gate(x)) * value(x)))
    torch.testing.assert_close(GatedMlp(gate, value, act, fc2, norm)(x), expected)
    torch.testing.assert_close(PackedGatedMlp(joined(gate, value), act, fc2, norm)(x), expected)


@pytest.mark.parametrize("kind", [Block, PostNormBlock])
def test_blocks_and_the_norms_that_only_linear_layers_read(kind: type[Block]) -> None:
    x, norms, (first, second) = torch.randn(2, 5, WIDTH), [nn.RMSNorm(WIDTH) for _ in range(2)], torch.randn(2, WIDTH)
    attention = Attention(nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH), HEADS)
    mlp = Mlp(nn.Linear(WIDTH, 6), nn.GELU(), nn.Linear(6, WIDTH))
    behind = kind is PostNormBlock
    block = kind(norms[0], attention, norms[1], mlp, scales=(None, None) if behind else (first, second))
    middle = x + (norms[0](attention(x)) if behind else first * attention(norms[0](x)))
    expected = middle + (norms[1](mlp(middle)) if behind else second * mlp(norms[1](middle)))
    torch.testing.assert_close(block(x), expected)
    found = {reader.name: reader.linears for reader in block.readers("b")}
    assert found == ({} if behind else {"b.norm1": (attention.qkv,), "b.norm2": (mlp.fc1,)})
    assert [reader.name for reader in block.inner_readers("b")] == ["b.mlp.norm", "b.attn.norm"]


def test_joined_layers_answer_side_by_side_and_a_missing_bias_is_zero() -> None:
    layers, x = (nn.Linear(WIDTH, 3), nn.Linear(WIDTH, 2, bias=False)), torch.randn(4, WIDTH)
    torch.testing.assert_close(joined(*layers)(x), torch.cat([layer(x) for layer in layers], -1))
    assert joined(layers[1]).bias is None and not joined(*layers).weight.requires_grad


def test_a_bias_in_parts_is_added() -> None:
    layer, x, parts = nn.Linear(WIDTH, 5), torch.randn(4, WIDTH), (torch.randn(2), None, torch.randn(3))
    before = layer.bias.clone()
    torch.testing.assert_close(with_bias(layer, *parts)(x), layer(x) + torch.cat((parts[0], parts[2])))
    assert with_bias(layer, None) is layer and torch.equal(layer.bias, before)
