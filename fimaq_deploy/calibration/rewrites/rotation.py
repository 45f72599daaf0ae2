"""The residual stream and the heads rotated.

QuaRot (arXiv 2404.00456), SliceGPT (arXiv 2401.15024). Once the norms' affine parts sit in the Linear layers and
everything written to the residual stream has mean zero, LayerNorm is RMSNorm, which commutes with an orthogonal matrix.
A randomised Hadamard matrix spreads outlier channels over all channels. Our variation, `keep_layer_norm`: a rotation
that leaves the mean over channels alone commutes with LayerNorm itself. A reflection makes one out of any rotation. No
centring is needed, and the graph keeps its LayerNormalization nodes, where RMSNorm becomes six plain nodes at opset 21,
one of which squares the stream (in FP16: |x| < 256).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from fimaq_deploy.calibration.rewrites.linear import absorb_shift, qkv_rows, scale_columns, scale_rows
from fimaq_deploy.errors import UserError
from fimaq_deploy.models.families import family_of
from fimaq_deploy.models.families.roles import Heads, LayerScale, NormReaders, Stream


@torch.no_grad()
def rotate_heads(model: nn.Module, seed: int) -> list[str]:
    """Rotate q and k of each head by one random orthogonal matrix, and v by another, undone in the output projection.

    q and k stay as they are where they are normalised afterwards, v where the attention output is normalised or gated.
    Returns the names of the attention modules that changed.
    """
    generator = torch.Generator().manual_seed(seed)
    changed = []
    for heads in family_of(model).heads(model):
        values = heads.plain_values and not heads.gated
        q_rows, k_rows, v_rows = qkv_rows(heads.qkv)
        if heads.plain_scores:
            rotation = _head_rotations(heads, generator)
            _rotate_rows(heads.qkv, q_rows, rotation)
            _rotate_rows(heads.qkv, k_rows, rotation)
        if values:
            rotation = _head_rotations(heads, generator)
            _rotate_rows(heads.qkv, v_rows, rotation)
            _rotate_columns(heads.proj, rotation)
        if heads.plain_scores or values:
            changed.append(heads.name)
    return changed


def _head_rotations(heads: Heads, generator: torch.Generator) -> Tensor:
    """(heads, size, size)"""
    return torch.stack([random_rotation(heads.size, generator) for _ in range(heads.count)])


def random_rotation(size: int, generator: torch.Generator) -> Tensor:
    """A random orthogonal matrix, float64 (size, size), applied to row vectors: diag(±1) (R ⊗ H).

    H is the Hadamard matrix of the largest power of two in `size`, R a random orthogonal matrix of the odd rest.
    """
    power = size & -size
    odd = torch.randn(size // power, size // power, generator=generator, dtype=torch.float64)
    rest = torch.linalg.qr(odd).Q if len(odd) > 1 else torch.ones(1, 1, dtype=torch.float64)
    signs = torch.randint(0, 2, (size,), generator=generator) * 2 - 1
    return signs[:, None] * torch.kron(rest.contiguous(), _hadamard(power))


def _keeping_means(rotation: Tensor) -> Tensor:
    """The rotation followed by the reflection that takes (1, ..., 1) back to where it was: means over channels stay."""
    ones = torch.full_like(rotation[0], len(rotation) ** -0.5)
    moved = ones @ rotation
    normal = moved - ones
    length = normal @ normal
    return rotation if length < 1e-20 else rotation - torch.outer(rotation @ normal, normal) * (2 / length)


def _hadamard(size: int) -> Tensor:
    """The orthonormal Sylvester matrix; size is a power of two."""
    matrix = torch.ones(1, 1, dtype=torch.float64)
    while len(matrix) < size:
        matrix = torch.cat([torch.cat([matrix, matrix], 1), torch.cat([matrix, -matrix], 1)]) / 2**0.5
    return matrix


def _rotate_rows(layer: nn.Linear | nn.Conv2d, rows: slice, rotations: Tensor) -> None:
    """Output channels y[rows] become Rᵀy, in consecutive groups, one per rotation (groups, size, size)."""
    for tensor in (layer.weight, layer.bias):
        if tensor is not None:
            part = tensor[rows]
            part.copy_(_rotated(part, rotations).view_as(part))


def _rotated(y: Tensor, rotations: Tensor) -> Tensor:
    """Rᵀy for each group of rows of y, whose first axis is groups * size: (groups, size, rest)."""
    groups, size, _ = rotations.shape
    return (rotations.to(y.device).mT @ y.double().reshape(groups, size, -1)).to(y.dtype)


def _rotate_columns(layer: nn.Linear, rotations: Tensor) -> None:
    """The layer reads Rᵀx, in consecutive groups, one per rotation, where it read x."""
    weight = layer.weight
    weight.copy_(_rotated(weight.T.contiguous(), rotations).reshape(weight.shape[1], -1).T)


@torch.no_grad()
def rotate_residual(model: nn.Module, seed: int, *, keep_layer_norm: bool = False) -> None:
    """ViT/DeiT: make every norm of the residual stream a weightless RMSNorm and rotate the stream.

    LayerScale goes into `attn.proj` and `mlp.fc2`, the norms' affine parts into the Linear layers that read them.
    A model without a head gets one that turns its answer back: a Linear of the stream's width, which stays in floats.
    keep_layer_norm: the norms become weightless LayerNorms instead, and the rotation one that keeps channel means.

    Raises:
        UserError: the structure does not allow it; names the module.
    """
    stream = _stream_of(model)
    if stream.open_end:
        setattr(*stream.open_end, _identity(stream))
        stream = _stream_of(model)
    for scale in stream.scales:
        _merge_layer_scale(scale)
    rotation = random_rotation(stream.width, torch.Generator().manual_seed(seed))
    centred = isinstance(stream.readers[0].norm, nn.LayerNorm)
    if centred and keep_layer_norm:
        rotation = _keeping_means(rotation)
    elif centred:
        _centre_stream(stream)
    for reader in stream.readers:
        _strip_norm(reader, nn.LayerNorm if centred and keep_layer_norm else nn.RMSNorm)
    _rotate_stream(stream, rotation[None])


def _stream_of(model: nn.Module) -> Stream:
    stream = family_of(model).stream(model)
    if isinstance(stream, str):
        raise UserError(f"the residual stream cannot be rotated: {stream}; leave the recipe's rewrites.rotation off")
    return stream


def _identity(stream: Stream) -> nn.Linear:
    """A Linear that changes nothing, where and of what the stream's own layers are."""
    like = stream.writers[0].weight
    layer = nn.Linear(stream.width, stream.width, device=like.device, dtype=like.dtype)
    nn.init.eye_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer.requires_grad_(like.requires_grad)


def _merge_layer_scale(scale: LayerScale) -> None:
    factors: Any = getattr(scale.owner, scale.leaf)
    scale_rows(scale.writer, slice(None), factors.gamma)
    setattr(scale.owner, scale.leaf, nn.Identity())


def _centre_stream(stream: Stream) -> None:
    """Take the mean over channels out of everything written to the stream: LayerNorm does not see it."""
    for layer in stream.writers:
        layer.weight.sub_(layer.weight.mean(0, keepdim=True))
        if layer.bias is not None:
            layer.bias.sub_(layer.bias.mean())
    for tokens in stream.tokens:
        tokens.sub_(tokens.mean(-1, keepdim=True))


def _strip_norm(reader: NormReaders, kind: type[nn.LayerNorm] | type[nn.RMSNorm]) -> None:
    """Move a norm's affine parts into its readers; a weightless norm of that kind remains."""
    norm = reader.norm
    for linear in reader.linears:
        if getattr(norm, "bias", None) is not None:
            absorb_shift(linear, norm.bias.double())
        if norm.weight is not None:
            scale_columns(linear, norm.weight)
    plain = kind(reader.linears[0].in_features, norm.eps, elementwise_affine=False)
    setattr(reader.owner, reader.leaf, plain.train(norm.training))


def _rotate_stream(stream: Stream, rotation: Tensor) -> None:
    for layer in stream.writers:
        _rotate_rows(layer, slice(None), rotation)
    for tokens in stream.tokens:
        tokens.copy_(tokens.double() @ rotation[0].to(tokens.device))
    for reader in stream.readers:
        for linear in reader.linears:
            _rotate_columns(linear, rotation)
