"""Attention with its products spelled out, and a place at each operand where a quantizer can be put.

A family derives a class for its own attention: what it does to q and k, which bias the scores get, what happens to the
result. The products are here, once.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class Operands(nn.Module):
    """What every operand of the two products passes: identities, until calibration puts quantizers in their place."""

    q: nn.Module
    k: nn.Module
    v: nn.Module
    softmax: nn.Module

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v, self.softmax = (nn.Identity() for _ in range(4))

    def weights(self, products: Tensor, scale: float | Tensor | None = None) -> Tensor:
        """What weighs the values: softmax(products · scale) over the last axis, behind its place. No scale is 1."""
        scores = products if scale is None else products * scale
        found: Tensor = self.softmax(scores.softmax(dim=-1))
        return found


class ExplicitAttention(nn.Module):
    """softmax(q kᵀ · scale + bias) v, in plain operators. Tokens x are (batch, tokens, channels).

    scale: a number, or a tensor (heads, 1, 1) with one for each head.
    """

    quantizers: Any
    scale: float | Tensor

    def __init__(self, qkv: nn.Linear, proj: nn.Linear, heads: int, scale: float) -> None:
        super().__init__()
        self.num_heads, self.scale = heads, scale
        self.qkv, self.proj = qkv, proj

    def quantize(self, quantizers: Operands | None = None) -> None:
        """Put something at each operand. None: nothing."""
        self.quantizers = quantizers or Operands()

    def split(self, x: Tensor) -> tuple[Tensor, ...]:
        """q, k and v of tokens, each (batch, heads, tokens, head size)."""
        qkv = self.qkv(x)
        if torch.is_grad_enabled() and qkv.requires_grad:
            found: tuple[Tensor, ...] = _Split.apply(qkv, self.num_heads)
            return found
        return _split(qkv, self.num_heads)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None = None) -> Tensor:
        """Tokens (batch, tokens, channels). bias: added to the scores, (1, heads, tokens, tokens), or with one for each
        of several windows that follow each other in the batch, (windows, heads, tokens, tokens).
        """
        products = self.quantizers.q(q) @ self.quantizers.k(k).transpose(-2, -1)
        if bias is None:
            weights = self.quantizers.weights(products, self.scale)
        else:
            weights = self.quantizers.weights(self.biased(products * self.scale, bias))
        y = weights @ self.quantizers.v(v)
        batch, heads, tokens, size = y.shape
        return y.transpose(1, 2).reshape(batch, tokens, heads * size)

    def biased(self, scores: Tensor, bias: Tensor) -> Tensor:
        """Scores with what is added to them, as of `attend`."""
        return _with_bias(scores, bias)


def _split(qkv: Tensor, heads: int) -> tuple[Tensor, ...]:
    batch, tokens, width = qkv.shape
    return qkv.reshape(batch, tokens, 3, heads, width // (3 * heads)).permute(2, 0, 3, 1, 4).unbind(0)


class _Split(torch.autograd.Function):
    """`_split`, whose gradients are put where they belong at once: autograd stacks them first and sorts them then."""

    @staticmethod
    def forward(ctx: Any, qkv: Tensor, heads: int) -> tuple[Tensor, ...]:
        return _split(qkv, heads)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return torch.stack([each.transpose(1, 2) for each in grads], 2).flatten(2), None


def _with_bias(scores: Tensor, bias: Tensor) -> Tensor:
    windows = bias.shape[0]
    if windows == 1:
        return scores + bias
    _, heads, tokens, _ = scores.shape
    return (scores.view(-1, windows, heads, tokens, tokens) + bias).view(-1, heads, tokens, tokens)
