"""Numbers moved in and out of Linear layers: rows of a qkv projection, columns, biases."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def qkv_rows(qkv: nn.Linear) -> tuple[slice, slice, slice]:
    """The rows of a fused projection that compute q, k and v."""
    width = qkv.out_features // 3
    return slice(0, width), slice(width, 2 * width), slice(2 * width, 3 * width)


def bias_of(layer: nn.Linear) -> nn.Parameter:
    """The layer's bias; a layer without one gets zeros."""
    if layer.bias is None:
        layer.bias = nn.Parameter(torch.zeros_like(layer.weight[:, 0]), layer.weight.requires_grad)
    return layer.bias


def scale_rows(layer: nn.Linear, rows: slice, factors: Tensor) -> None:
    """Output channels times factors."""
    factors = factors.to(layer.weight)
    layer.weight[rows] *= factors[:, None]
    if layer.bias is not None:
        layer.bias[rows] *= factors


def scale_columns(layer: nn.Linear, factors: Tensor) -> None:
    """Input channels times factors."""
    layer.weight.mul_(factors.to(layer.weight))


def absorb_shift(layer: nn.Linear, shift: Tensor) -> None:
    """The layer reads x - shift from now on: add W·shift to its bias."""
    bias_of(layer).add_((layer.weight.double() @ shift).to(layer.weight.dtype))
