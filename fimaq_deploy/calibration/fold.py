"""Exact rewrites of a full-precision ViT, DeiT or Swin that make it easier to quantize.

Every rewrite moves numbers between neighbouring layers and leaves the logits as they were, up to float rounding, and
the run-time graph as large as it was. Sources of the ideas; the formulas here are our own:

- `fold_norm_ranges`: RepQ-ViT (arXiv 2212.08254) and SmoothQuant (arXiv 2211.10438). Channel c of a norm's output is
  shifted by its centre m_c and divided by f_c = (range_c / geometric mean of the ranges)^strength; the Linear that
  reads it multiplies its input columns by f_c and adds W m to its bias. One scale then serves all channels.
- `balance_heads`: q_c·a_c and k_c/a_c leave q·k alone; v_c/f_c is undone in the columns of the output projection. A
  constant added to all keys drops out of the softmax, so keys are centred; one added to all values passes through,
  because attention rows sum to one, and moves to the projection's bias (quantized rows sum only nearly to one, which is
  why `centre_values` is off unless asked for).
- `rotate_residual`, `rotate_heads`: QuaRot (arXiv 2404.00456), SliceGPT (arXiv 2401.15024). Once the norms' affine
  parts sit in the Linear layers and everything written to the residual stream has mean zero, LayerNorm is RMSNorm,
  which commutes with an orthogonal matrix. A randomised Hadamard matrix spreads outlier channels over all channels.
  Our variation, `keep_layer_norm`: a rotation that leaves the mean over channels alone commutes with LayerNorm itself.
  A reflection makes one out of any rotation. No centring is needed, and the graph keeps its LayerNormalization nodes,
  where RMSNorm becomes six plain nodes at opset 21, one of which squares the stream (in FP16: |x| < 256).

Which modules and parameters exist afterwards depends on the model and the switches only, never on the images: applying
the same rewrites with any images to the same model gives something that a saved state fits into.

Not covered: per-channel scales between fc1 and fc2 (GELU is in between), Swin's residual stream.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from timm.layers.attention import Attention
from timm.layers.mlp import GatedMlp, GluMlp, Mlp, SwiGLU
from timm.layers.norm import RmsNorm, RmsNormFp32
from timm.layers.patch_embed import PatchEmbed
from timm.models.swin_transformer import PatchMerging, SwinTransformer, SwinTransformerBlock, WindowAttention
from timm.models.vision_transformer import Block, VisionTransformer
from torch import Tensor, nn

from fimaq_deploy.errors import UserError
from fimaq_deploy.recipe import Rewrites

# What a recipe that does not say gets, per family.
DEFAULTS: dict[str, dict[str, bool]] = {
    "vit": {"norm": True, "heads": False, "rotation": False},
    "swin": {"norm": True, "heads": False, "rotation": False},
}
NORM_STRENGTH = 0.5
VALUE_STRENGTH = 0.5
CENTRE_VALUES = False
KEEP_LAYER_NORM = True

_LARGEST_FACTOR = 16.0
_BATCH = 32
_CHECKED_IMAGES = 8
_TOLERANCE = 1e-3
_RMS_NORMS = (nn.RMSNorm, RmsNorm, RmsNormFp32)


def resolve_rewrites(model: nn.Module, rewrites: Rewrites) -> Rewrites:
    """The rewrites with every None decided: the model family's default, or False where the structure refuses it."""
    defaults = DEFAULTS["swin" if isinstance(model, SwinTransformer) else "vit"]
    defaults = {**defaults, "rotation": defaults["rotation"] and rotation_obstacle(model) is None}
    asked = {field: value for field, value in rewrites.model_dump().items() if value is not None}
    return Rewrites(**{**defaults, **asked})


@torch.no_grad()
def apply_rewrites(model: nn.Module, images: Tensor, rewrites: Rewrites, seed: int) -> list[str]:
    """Rewrite the model in place as the recipe says; returns the names of the functions that were applied, in order.

    images: float32 (N, C, H, W) to measure ranges on.

    Raises:
        UserError: a rotation was asked for that the model's structure does not allow, or the logits changed because
            the model computes something that its timm class does not.
    """
    chosen = resolve_rewrites(model, rewrites)
    sample = images[:_CHECKED_IMAGES]
    before = _logits(model, sample)
    applied = []
    if chosen.rotation:
        rotate_residual(model, seed, keep_layer_norm=KEEP_LAYER_NORM)
        rotate_heads(model, seed)
        applied += ["rotate_residual", "rotate_heads"]
    if chosen.heads:
        balance_heads(model, images)
        applied.append("balance_heads")
    if chosen.norm:
        fold_norm_ranges(model, images, NORM_STRENGTH)
        applied.append("fold_norm_ranges")
    if applied:
        _check_unchanged(before, _logits(model, sample), applied)
    return applied


def _logits(model: nn.Module, images: Tensor) -> Tensor:
    return model(images.to(next(model.parameters()).device))


def _check_unchanged(before: Tensor, after: Tensor, applied: list[str]) -> None:
    error = (after - before).abs().max() / before.abs().max().clamp(min=1e-12)
    if before.isfinite().all() and not error <= _TOLERANCE:
        raise UserError(
            f"the rewrites {', '.join(applied)} change this model's logits by {float(error):.1e}, expected at most "
            f"{_TOLERANCE:.0e}: it shares weights or overrides timm's forward; set its recipe's rewrites to false"
        )


# ----------------------------------------------------------------------------------------------------------- measuring


@dataclass
class ChannelStats:
    """Minimum, maximum and mean of every channel (last axis) over all that was seen."""

    low: Tensor
    high: Tensor
    total: Tensor
    count: int

    @classmethod
    def of(cls, x: Tensor) -> ChannelStats:
        x = x.flatten(0, -2)
        return cls(x.amin(0).double(), x.amax(0).double(), x.sum(0, dtype=torch.float64), len(x))

    def merged(self, other: ChannelStats) -> ChannelStats:
        low, high = torch.minimum(self.low, other.low), torch.maximum(self.high, other.high)
        return ChannelStats(low, high, self.total + other.total, self.count + other.count)

    @property
    def mean(self) -> Tensor:
        return self.total / self.count

    @property
    def middle(self) -> Tensor:
        return (self.low + self.high) / 2

    def reach(self, centre: Tensor | None = None) -> Tensor:
        """The largest distance from the centre (from zero if None)."""
        centre = torch.zeros_like(self.low) if centre is None else centre
        return torch.maximum(self.high - centre, centre - self.low)

    def part(self, rows: slice) -> ChannelStats:
        return ChannelStats(self.low[rows], self.high[rows], self.total[rows], self.count)


def measure_channels(model: nn.Module, images: Tensor, modules: dict[str, nn.Module]) -> dict[str, ChannelStats]:
    """Statistics of the outputs of some of the model's modules, by the names given, on images (N, C, H, W)."""
    seen: dict[str, ChannelStats] = {}

    def watch(name: str) -> Any:
        def hook(_module: nn.Module, _inputs: Any, output: Tensor) -> None:
            stats = ChannelStats.of(output)
            seen[name] = seen[name].merged(stats) if name in seen else stats

        return hook

    handles = [module.register_forward_hook(watch(name)) for name, module in modules.items()]
    try:
        for batch in images.split(_BATCH):
            _logits(model, batch)
    finally:
        for handle in handles:
            handle.remove()
    return seen


def _equalising_factors(reach: Tensor, strength: float) -> Tensor:
    """f = (reach / geometric mean)^strength, within [1/16, 16]."""
    logs = reach.clamp(min=1e-12).log()
    return ((logs - logs.mean()) * strength).exp().clamp(1 / _LARGEST_FACTOR, _LARGEST_FACTOR)


# ------------------------------------------------------------------------------------------------------ the structure


@dataclass(frozen=True)
class _NormReaders:
    """A norm and every Linear that reads its output. can_shift: nothing but these layers sees the output's offset."""

    name: str
    owner: nn.Module
    leaf: str
    linears: tuple[nn.Linear, ...]
    can_shift: bool = True

    @property
    def norm(self) -> Any:
        return getattr(self.owner, self.leaf)


def _norm_readers(model: nn.Module) -> Iterator[_NormReaders]:
    """The norms in blocks and patch mergings whose readers are known to be Linear layers."""
    for name, module in model.named_modules():
        if type(module) in (Block, SwinTransformerBlock):
            yield from _block_readers(f"{name}.", module)
        elif type(module) is PatchMerging:
            yield _NormReaders(f"{name}.norm", module, "norm", (module.reduction,))


def _block_readers(prefix: str, block: Any) -> Iterator[_NormReaders]:
    attention, mlp = _attention_inputs(block.attn), _mlp_inputs(block.mlp)
    if attention:
        yield _NormReaders(f"{prefix}norm1", block, "norm1", attention, not _pads_windows(block))
    if mlp:
        yield _NormReaders(f"{prefix}norm2", block, "norm2", mlp)


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


def _attentions(model: nn.Module) -> Iterator[tuple[str, Any]]:
    return ((name, m) for name, m in model.named_modules() if type(m) in (Attention, WindowAttention))


def _is_identity(attention: Any, *leaves: str) -> bool:
    return all(isinstance(getattr(attention, leaf, None), nn.Identity | None) for leaf in leaves)


def _qkv_rows(attention: Any) -> tuple[slice, slice, slice]:
    width = attention.qkv.out_features // 3
    return slice(0, width), slice(width, 2 * width), slice(2 * width, 3 * width)


def _bias_of(layer: nn.Linear) -> nn.Parameter:
    """The layer's bias; a layer without one gets zeros."""
    if layer.bias is None:
        layer.bias = nn.Parameter(torch.zeros_like(layer.weight[:, 0]), layer.weight.requires_grad)
    return layer.bias


def _scale_rows(layer: nn.Linear, rows: slice, factors: Tensor) -> None:
    factors = factors.to(layer.weight)
    layer.weight[rows] *= factors[:, None]
    if layer.bias is not None:
        layer.bias[rows] *= factors


def _scale_columns(layer: nn.Linear, factors: Tensor) -> None:
    layer.weight.mul_(factors.to(layer.weight))


def _absorb_shift(layer: nn.Linear, shift: Tensor) -> None:
    """The layer reads x - shift from now on: add W·shift to its bias."""
    _bias_of(layer).add_((layer.weight.double() @ shift).to(layer.weight.dtype))


# --------------------------------------------------------------------------------------------------- norms to Linears


@torch.no_grad()
def fold_norm_ranges(
    model: nn.Module, images: Tensor, strength: float = NORM_STRENGTH, *, shift: bool = True
) -> list[str]:
    """Equalise the channels of every norm output that only Linear layers read; returns the names of those norms.

    strength: 1 gives all channels one range (RepQ-ViT), 0.5 half of that in logarithms (SmoothQuant), 0 only shifts.
    shift: also centre the channels. Linears without a bias (Swin's `reduction`) get one for it. RMS norms only scale,
        having no bias, and so does Swin's norm1 where windows are padded.

    A norm without affine parameters gets the ones that it needs, which its ONNX operator has anyway.
    """
    readers = [reader for reader in _norm_readers(model) if isinstance(reader.norm, (nn.LayerNorm, *_RMS_NORMS))]
    measured = measure_channels(model, images, {reader.name: reader.norm for reader in readers})
    for reader in readers:
        _fold_norm(reader, measured[reader.name], strength, shift)
    return [reader.name for reader in readers]


def _fold_norm(reader: _NormReaders, stats: ChannelStats, strength: float, shift: bool) -> None:
    norm = reader.norm
    shifts = shift and reader.can_shift and isinstance(norm, nn.LayerNorm)
    centre = stats.middle if shifts else torch.zeros_like(stats.low)
    factors = _equalising_factors(stats.reach(centre), strength)
    _make_affine(norm, reader.linears[0].weight[0], shifts)
    norm.weight.div_(factors.to(norm.weight))
    if getattr(norm, "bias", None) is not None:
        norm.bias.copy_((norm.bias.double() - centre) / factors)
    for linear in reader.linears:
        if shifts:
            _absorb_shift(linear, centre)
        _scale_columns(linear, factors)


def _make_affine(norm: Any, like: Tensor, with_bias: bool) -> None:
    """Give a norm the neutral parameters that it lacks."""
    if norm.weight is None:
        norm.weight = nn.Parameter(torch.ones_like(like), like.requires_grad)
    if with_bias and norm.bias is None:
        norm.bias = nn.Parameter(torch.zeros_like(like), like.requires_grad)


# ----------------------------------------------------------------------------------------------------- q, k and v


@torch.no_grad()
def balance_heads(
    model: nn.Module,
    images: Tensor,
    *,
    value_strength: float = VALUE_STRENGTH,
    centre_values: bool = CENTRE_VALUES,
) -> list[str]:
    """Centre the keys, give q and k equal reach channel by channel, and equalise the channels of v.

    value_strength: 1 gives all channels of v one reach, 0 leaves them alone. centre_values: also subtract v's means.

    q and k stay as they are where they are normalised afterwards, v where the attention output is. Returns the names of
    the attention modules that changed.
    """
    found = dict(_attentions(model))
    measured = measure_channels(model, images, {name: attention.qkv for name, attention in found.items()})
    changed = []
    for name, attention in found.items():
        scores, values = _is_identity(attention, "q_norm", "k_norm"), _is_identity(attention, "norm")
        if scores:
            _balance_scores(attention, measured[name])
        if values:
            # A gate multiplies channel by channel: factors pass it, shifts do not.
            centre = centre_values and _is_identity(attention, "gate")
            _balance_values(attention, measured[name], value_strength, centre)
        if scores or values:
            changed.append(name)
    return changed


def _balance_scores(attention: Any, stats: ChannelStats) -> None:
    q_rows, k_rows, _ = _qkv_rows(attention)
    q, k = stats.part(q_rows), stats.part(k_rows)
    _bias_of(attention.qkv)[k_rows] -= k.mean.to(attention.qkv.weight)
    ratio = k.reach(k.mean).clamp(min=1e-12) / q.reach().clamp(min=1e-12)
    factors = ratio.sqrt().clamp(1 / _LARGEST_FACTOR, _LARGEST_FACTOR)
    _scale_rows(attention.qkv, q_rows, factors)
    _scale_rows(attention.qkv, k_rows, 1 / factors)


def _balance_values(attention: Any, stats: ChannelStats, strength: float, centre: bool) -> None:
    rows = _qkv_rows(attention)[2]
    v = stats.part(rows)
    if centre:
        _bias_of(attention.qkv)[rows] -= v.mean.to(attention.qkv.weight)
        _absorb_shift(attention.proj, v.mean)
    factors = _equalising_factors(v.reach(v.mean if centre else None), strength)
    _scale_rows(attention.qkv, rows, 1 / factors)
    _scale_columns(attention.proj, factors)


@torch.no_grad()
def rotate_heads(model: nn.Module, seed: int) -> list[str]:
    """Rotate q and k of each head by one random orthogonal matrix, and v by another, undone in the output projection.

    q and k stay as they are where they are normalised afterwards, v where the attention output is normalised or gated.
    Returns the names of the attention modules that changed.
    """
    generator = torch.Generator().manual_seed(seed)
    changed = []
    for name, attention in _attentions(model):
        scores, values = _is_identity(attention, "q_norm", "k_norm"), _is_identity(attention, "norm", "gate")
        q_rows, k_rows, v_rows = _qkv_rows(attention)
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


# ------------------------------------------------------------------------------------------------ the residual stream


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
        if type(block) is not Block or len(list(_block_readers("", block))) != 2:
            return f"module 'blocks.{index}' is a {type(block).__name__} of unknown parts, expected Block"
        if not isinstance(block.mlp.fc2, nn.Linear):
            return f"module 'blocks.{index}.mlp.fc2' is not a Linear"
    readers = _stream_readers(model)
    kind = nn.LayerNorm if isinstance(readers[0].norm, nn.LayerNorm) else _RMS_NORMS
    odd = next((reader for reader in readers if not isinstance(reader.norm, kind)), None)
    if odd is not None:
        return f"module '{odd.name}' is a {type(odd.norm).__name__}: expected all LayerNorm or all RMSNorm"
    return None


def _stream_readers(model: Any) -> list[_NormReaders]:
    """Every norm that reads the residual stream of a ViT, the one before the head last."""
    leaf = "fc_norm" if isinstance(model.norm, nn.Identity) else "norm"
    heads: Any = tuple(head for _, head in _heads(model))
    return [*_norm_readers(model), _NormReaders(leaf, model, leaf, heads)]


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
        _scale_rows(writer, slice(None), scale.gamma)
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


def _strip_norm(reader: _NormReaders, kind: type[nn.LayerNorm] | type[nn.RMSNorm]) -> None:
    """Move a norm's affine parts into its readers; a weightless norm of that kind remains."""
    norm = reader.norm
    for linear in reader.linears:
        if getattr(norm, "bias", None) is not None:
            _absorb_shift(linear, norm.bias.double())
        if norm.weight is not None:
            _scale_columns(linear, norm.weight)
    plain = kind(reader.linears[0].in_features, norm.eps, elementwise_affine=False)
    setattr(reader.owner, reader.leaf, plain.train(norm.training))


def _rotate_stream(model: nn.Module, readers: list[_NormReaders], rotation: Tensor) -> None:
    for layer in _stream_layers(model):
        _rotate_rows(layer, slice(None), rotation)
    for tokens in _stream_tokens(model):
        tokens.copy_(tokens.double() @ rotation[0].to(tokens.device))
    for reader in readers:
        for linear in reader.linears:
            _rotate_columns(linear, rotation)
