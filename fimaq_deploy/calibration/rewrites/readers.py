"""Who reads what in a block: norms and the Linears behind them, rows of a qkv projection, biases and columns."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from timm.layers.attention import Attention
from timm.layers.mlp import GatedMlp, GluMlp, Mlp, SwiGLU
from timm.layers.norm import RmsNorm, RmsNormFp32
from timm.models.swin_transformer import PatchMerging, SwinTransformerBlock, WindowAttention
from timm.models.vision_transformer import Block
from torch import Tensor, nn

RMS_NORMS = (nn.RMSNorm, RmsNorm, RmsNormFp32)


@dataclass(frozen=True)
class NormReaders:
    """A norm and every Linear that reads its output. can_shift: nothing but these layers sees the output's offset."""

    name: str
    owner: nn.Module
    leaf: str
    linears: tuple[nn.Linear, ...]
    can_shift: bool = True

    @property
    def norm(self) -> Any:
        return getattr(self.owner, self.leaf)


def norm_readers(model: nn.Module) -> Iterator[NormReaders]:
    """The norms in blocks and patch mergings whose readers are known to be Linear layers."""
    for name, module in model.named_modules():
        if type(module) in (Block, SwinTransformerBlock):
            yield from block_readers(f"{name}.", module)
        elif type(module) is PatchMerging:
            yield NormReaders(f"{name}.norm", module, "norm", (module.reduction,))


def block_readers(prefix: str, block: Any) -> Iterator[NormReaders]:
    attention, mlp = _attention_inputs(block.attn), _mlp_inputs(block.mlp)
    if attention:
        yield NormReaders(f"{prefix}norm1", block, "norm1", attention, not _pads_windows(block))
    if mlp:
        yield NormReaders(f"{prefix}norm2", block, "norm2", mlp)


def _attention_inputs(attention: Any) -> tuple[nn.Linear, ...]:
    if type(attention) not in (Attention, WindowAttention):
        return ()
    gate = getattr(attention, "gate", None)
    return (attention.qkv,) if gate is None else (attention.qkv, gate)


def _mlp_inputs(mlp: Any) -> tuple[nn.Linear, ...]:
    if type(mlp) is SwiGLU:
        return (mlp.fc1_g, mlp.fc1_x)
    known = type(mlp) in (Mlp, GluMlp, GatedMlp) and isinstance(mlp.fc1, nn.Linear)
    return (mlp.fc1,) if known else ()


def _pads_windows(block: Any) -> bool:
    """Whether Swin pads norm1's output with zeros, which a shift of that output would move."""
    if not isinstance(block, SwinTransformerBlock):
        return False
    sizes = zip(block.input_resolution, block.window_size, strict=True)
    return block.dynamic_mask or any(size % window for size, window in sizes)


def attentions(model: nn.Module) -> Iterator[tuple[str, Any]]:
    return ((name, m) for name, m in model.named_modules() if type(m) in (Attention, WindowAttention))


def is_identity(attention: Any, *leaves: str) -> bool:
    return all(isinstance(getattr(attention, leaf, None), nn.Identity | None) for leaf in leaves)


def qkv_rows(attention: Any) -> tuple[slice, slice, slice]:
    width = attention.qkv.out_features // 3
    return slice(0, width), slice(width, 2 * width), slice(2 * width, 3 * width)


def bias_of(layer: nn.Linear) -> nn.Parameter:
    """The layer's bias; a layer without one gets zeros."""
    if layer.bias is None:
        layer.bias = nn.Parameter(torch.zeros_like(layer.weight[:, 0]), layer.weight.requires_grad)
    return layer.bias


def scale_rows(layer: nn.Linear, rows: slice, factors: Tensor) -> None:
    factors = factors.to(layer.weight)
    layer.weight[rows] *= factors[:, None]
    if layer.bias is not None:
        layer.bias[rows] *= factors


def scale_columns(layer: nn.Linear, factors: Tensor) -> None:
    layer.weight.mul_(factors.to(layer.weight))


def absorb_shift(layer: nn.Linear, shift: Tensor) -> None:
    """The layer reads x - shift from now on: add W·shift to its bias."""
    bias_of(layer).add_((layer.weight.double() @ shift).to(layer.weight.dtype))
