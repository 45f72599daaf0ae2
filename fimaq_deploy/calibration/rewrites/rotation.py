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
from timm.layers.patch_embed import PatchEmbed
from timm.models.swin_transformer import SwinTransformer
from timm.models.vision_transformer import Block, VisionTransformer
from torch import Tensor, nn

from fimaq_deploy.calibration.rewrites.readers import (
    RMS_NORMS,
    NormReaders,
    absorb_shift,
    attentions,
    block_readers,
    is_identity,
    norm_readers,
    qkv_rows,
    scale_columns,
    scale_rows,
)
from fimaq_deploy.errors import UserError


@torch.no_grad()
def rotate_heads(model: nn.Module, seed: int) -> list[str]:
    """Rotate q and k of each head by one random orthogonal matrix, and v by another, undone in the output projection.

    q and k stay as they are where they are normalised afterwards, v where the attention output is normalised or gated.
    Returns the names of the attention modules that changed.
    """
    generator = torch.Generator().manual_seed(seed)
    changed = []
    for name, attention in attentions(model):
        scores, values = is_identity(attention, "q_norm", "k_norm"), is_identity(attention, "norm", "gate")
        q_rows, k_rows, v_rows = qkv_rows(attention)
        if scores:
            rotation = _head_rotations(attention, generator)
            _rotate_rows(attention.qkv, q_rows, rotation)
            _rotate_rows(attention.qkv, k_rows, rotation)
        if values:
            rotation = _head_rotations(attention, generator)
            _rotate_rows(attention.qkv, v_rows, rotation)
            _rotate_columns(attention.proj, rotation)
        if scores or values:
            changed.append(name)
    return changed


def _head_rotations(attention: Any, generator: torch.Generator) -> Tensor:
    """(heads, size, size)"""
    size = attention.qkv.out_features // (3 * attention.num_heads)
    return torch.stack([random_rotation(size, generator) for _ in range(attention.num_heads)])


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


def rotation_obstacle(model: nn.Module) -> str | None:
    """Why the residual stream of this model cannot be rotated exactly, naming the module; None if it can."""
    if isinstance(model, SwinTransformer):
        return "module 'patch_embed.norm': Swin's residual stream starts at a norm, which no rotation folds into"
    if not isinstance(model, VisionTransformer):
        return f"{type(model).__name__}: expected a timm VisionTransformer (ViT, DeiT)"
    return _embedding_obstacle(model) or _head_obstacle(model) or _block_obstacle(model)


def _embedding_obstacle(model: Any) -> str | None:
    if type(model.patch_embed) is not PatchEmbed:
        return f"module 'patch_embed' is a {type(model.patch_embed).__name__}, expected PatchEmbed"
    for name in ("patch_embed.norm", "norm_pre"):
        if not isinstance(model.get_submodule(name), nn.Identity):
            return f"module '{name}': a norm between the embedding and the blocks cannot take a rotation"
    return None


def _head_obstacle(model: Any) -> str | None:
    if model.attn_pool is not None:
        return "module 'attn_pool': attention pooling cannot take a rotation"
    if model.global_pool not in ("", "token", "avg"):
        return f"global_pool '{model.global_pool}': a maximum over rotated tokens is another one; expected token or avg"
    normed = [name for name in ("norm", "fc_norm") if not isinstance(getattr(model, name), nn.Identity)]
    if len(normed) != 1:
        return f"modules 'norm' and 'fc_norm': expected exactly one norm before the head, found {len(normed)}"
    return next((f"module '{name}' is not a Linear" for name, m in _heads(model) if not isinstance(m, nn.Linear)), None)


def _heads(model: Any) -> list[tuple[str, nn.Module]]:
    return [(name, getattr(model, name)) for name in ("head", "head_dist") if hasattr(model, name)]


def _block_obstacle(model: Any) -> str | None:
    for index, block in enumerate(model.blocks):
        if type(block) is not Block or len(list(block_readers("", block))) != 2:
            return f"module 'blocks.{index}' is a {type(block).__name__} of unknown parts, expected Block"
        if not isinstance(block.mlp.fc2, nn.Linear):
            return f"module 'blocks.{index}.mlp.fc2' is not a Linear"
    readers = _stream_readers(model)
    kind = nn.LayerNorm if isinstance(readers[0].norm, nn.LayerNorm) else RMS_NORMS
    odd = next((reader for reader in readers if not isinstance(reader.norm, kind)), None)
    if odd is not None:
        return f"module '{odd.name}' is a {type(odd.norm).__name__}: expected all LayerNorm or all RMSNorm"
    return None


def _stream_readers(model: Any) -> list[NormReaders]:
    """Every norm that reads the residual stream of a ViT, the one before the head last."""
    leaf = "fc_norm" if isinstance(model.norm, nn.Identity) else "norm"
    heads: Any = tuple(head for _, head in _heads(model))
    return [*norm_readers(model), NormReaders(leaf, model, leaf, heads)]


@torch.no_grad()
def rotate_residual(model: nn.Module, seed: int, *, keep_layer_norm: bool = False) -> None:
    """ViT/DeiT: make every norm of the residual stream a weightless RMSNorm and rotate the stream.

    LayerScale goes into `attn.proj` and `mlp.fc2`, the norms' affine parts into the Linear layers that read them.
    keep_layer_norm: the norms become weightless LayerNorms instead, and the rotation one that keeps channel means.

    Raises:
        UserError: the structure does not allow it; names the module.
    """
    obstacle = rotation_obstacle(model)
    if obstacle is not None:
        raise UserError(f"the residual stream cannot be rotated: {obstacle}; leave the recipe's rewrites.rotation off")
    for block in model.blocks:
        _merge_layer_scale(block, "ls1", block.attn.proj)
        _merge_layer_scale(block, "ls2", block.mlp.fc2)
    rotation = random_rotation(model.embed_dim, torch.Generator().manual_seed(seed))
    readers = _stream_readers(model)
    centred = isinstance(readers[0].norm, nn.LayerNorm)
    if centred and keep_layer_norm:
        rotation = _keeping_means(rotation)
    elif centred:
        _centre_stream(model)
    for reader in readers:
        _strip_norm(reader, nn.LayerNorm if centred and keep_layer_norm else nn.RMSNorm)
    _rotate_stream(model, readers, rotation[None])


def _merge_layer_scale(block: nn.Module, leaf: str, writer: nn.Linear) -> None:
    scale: Any = getattr(block, leaf)
    if not isinstance(scale, nn.Identity):
        scale_rows(writer, slice(None), scale.gamma)
        setattr(block, leaf, nn.Identity())


def _stream_layers(model: Any) -> list[nn.Linear | nn.Conv2d]:
    """The layers whose outputs are added to the residual stream."""
    return [model.patch_embed.proj, *(layer for block in model.blocks for layer in (block.attn.proj, block.mlp.fc2))]


def _stream_tokens(model: Any) -> list[Tensor]:
    """The learned (1, tokens, channels) tensors of the residual stream."""
    found = (getattr(model, name, None) for name in ("cls_token", "reg_token", "dist_token", "pos_embed"))
    return [tokens for tokens in found if tokens is not None]


def _centre_stream(model: nn.Module) -> None:
    """Take the mean over channels out of everything written to the stream: LayerNorm does not see it."""
    for layer in _stream_layers(model):
        layer.weight.sub_(layer.weight.mean(0, keepdim=True))
        if layer.bias is not None:
            layer.bias.sub_(layer.bias.mean())
    for tokens in _stream_tokens(model):
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


def _rotate_stream(model: nn.Module, readers: list[NormReaders], rotation: Tensor) -> None:
    for layer in _stream_layers(model):
        _rotate_rows(layer, slice(None), rotation)
    for tokens in _stream_tokens(model):
        tokens.copy_(tokens.double() @ rotation[0].to(tokens.device))
    for reader in readers:
        for linear in reader.linears:
            _rotate_columns(linear, rotation)
