"""What chains are built of: tokens from an image, a transformer block, its attention, its MLP.

They hold the numbers of another library's model and compute what it computes, in the form that quantizes and compiles
well: one product for q, k and v, and constants where the other computes the same numbers for every image.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from fimaq_deploy.errors import UserError
from fimaq_deploy.models.families.attention import ExplicitAttention
from fimaq_deploy.models.families.roles import NormReaders, is_identity


class Tokens(nn.Module):
    """Images (N, C, H, W) to tokens (N, prefix + patches, channels).

    constants: (1, prefix + patches, channels), what is the same for every image: class and register tokens in front,
        positions added to patches. norm: of all tokens.
    """

    def __init__(
        self, proj: nn.Conv2d, constants: Tensor, patches: int, *, positions: bool = True, norm: nn.Module | None = None
    ) -> None:
        super().__init__()
        prefix = constants.shape[1] - patches
        self.proj, self.norm = proj, norm or nn.Identity()
        self.prefix = nn.Parameter(constants[:, :prefix].detach().clone(), False) if prefix else None
        self.position = nn.Parameter(constants[:, prefix:].detach().clone(), False) if positions else None

    def forward(self, images: Tensor) -> Tensor:
        x = self.proj(images).flatten(2).transpose(1, 2)
        if self.position is not None:
            x = x + self.position
        if self.prefix is not None:
            x = torch.cat((self.prefix.expand(len(x), -1, -1), x), 1)
        return self.norm(x)


@torch.no_grad()
def tokens(
    proj: nn.Conv2d,
    embed: Callable[[Tensor], Tensor],
    shape: tuple[int, int, int],
    *,
    positions: bool = True,
    norm: nn.Module | None = None,
) -> Tokens:
    """The tokens that a model embeds images of one shape (C, H, W) in, up to its norm.

    embed: the model's own embedding, with `proj` in it. Its constants are what it answers where `proj` answers zeros.

    Raises:
        UserError: the model takes no images of this shape.
    """
    grid: list[Tensor] = []

    def silence(_module: nn.Module, _inputs: Any, output: Tensor) -> Tensor:
        grid.append(output)
        return torch.zeros_like(output)

    handle = proj.register_forward_hook(silence)
    try:
        constants = embed(proj.weight.new_zeros(1, *shape))
    except (ValueError, RuntimeError, AssertionError) as error:
        raise UserError(f"the model takes no images of {shape}: {' '.join(str(error).split())[:200]}") from error
    finally:
        handle.remove()
    return Tokens(proj, constants, grid[0].shape[-2] * grid[0].shape[-1], positions=positions, norm=norm)


class Rotary(nn.Module):
    """Rotary positions in the layout of halves: channel i turns together with channel i + size / 2.

    sin, cos: (tokens, size) or (heads, tokens, size) of the tokens behind `prefix` others, which are not turned.
    """

    cos: Tensor
    sin: Tensor

    def __init__(self, sin: Tensor, cos: Tensor, prefix: int) -> None:
        super().__init__()
        half = sin.shape[-1] // 2
        still = [*sin.shape[:-2], prefix, sin.shape[-1]]
        signed = torch.cat((-sin[..., :half], sin[..., half:]), -1)
        # Not saved: they follow from the image size alone, or are the model's own.
        self.register_buffer("cos", torch.cat((cos.new_ones(still), cos), -2).detach(), persistent=False)
        self.register_buffer("sin", torch.cat((sin.new_zeros(still), signed), -2).detach(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        half = x.shape[-1] // 2
        return x * self.cos + torch.cat((x[..., half:], x[..., :half]), -1) * self.sin


class RelativeBias(nn.Module):
    """A bias of the scores by relative position, (1, heads, tokens, tokens), from a table (entries, heads)."""

    index: Tensor

    def __init__(self, table: Tensor, index: Tensor) -> None:
        super().__init__()
        self.table = nn.Parameter(table.detach().clone(), False)
        self.register_buffer("index", index, persistent=False)

    def forward(self) -> Tensor:
        return self.table[self.index.flatten()].view(*self.index.shape, -1).permute(2, 0, 1).unsqueeze(0)


class Direction(nn.Module):
    """Vectors of length one, for attention by cosines."""

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.normalize(x, dim=-1)


class Attention(ExplicitAttention):
    """Self-attention of tokens or windows (batch, tokens, channels), with what libraries add to it.

    scale: a number, or one for each head (heads, 1, 1). norm: of the result, in front of `proj`. gate: a Linear whose
    sigmoid multiplies the result channel by channel.
    """

    def __init__(
        self,
        qkv: nn.Linear,
        proj: nn.Linear,
        heads: int,
        *,
        scale: float | Tensor | None = None,
        q_norm: nn.Module | None = None,
        k_norm: nn.Module | None = None,
        rotary: Rotary | None = None,
        bias: RelativeBias | None = None,
        norm: nn.Module | None = None,
        gate: nn.Linear | None = None,
    ) -> None:
        size = qkv.out_features // (3 * heads)
        super().__init__(qkv, proj, heads, size**-0.5)
        if scale is not None:
            self.scale = nn.Parameter(scale.detach().clone(), False) if isinstance(scale, Tensor) else scale
        self.q_norm, self.k_norm, self.norm = (one or nn.Identity() for one in (q_norm, k_norm, norm))
        self.rotary, self.bias, self.gate = rotary or nn.Identity(), bias, gate
        self.quantize()

    @property
    def plain_scores(self) -> bool:
        """Whether nothing but a scale stands between the projection and q·kᵀ."""
        return is_identity(self, "q_norm", "k_norm", "rotary")

    @property
    def inputs(self) -> tuple[nn.Linear, ...]:
        """Every Linear that reads the input."""
        return (self.qkv,) if self.gate is None else (self.qkv, self.gate)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """mask: (windows, 1, tokens, tokens), added to the scores of several windows that follow each other."""
        q, k, v = self.split(x)
        y = self.norm(self.attend(self.rotary(self.q_norm(q)), self.rotary(self.k_norm(k)), v, self._bias(mask)))
        if self.gate is not None:
            y = y * self.gate(x).sigmoid()
        return self.proj(y)

    def _bias(self, mask: Tensor | None) -> Tensor | None:
        own = self.bias() if self.bias is not None else None
        return own if mask is None else mask if own is None else own + mask


class Mlp(nn.Module):
    """fc2(norm(act(fc1(x))))."""

    def __init__(self, fc1: nn.Linear, act: nn.Module, fc2: nn.Linear, norm: nn.Module | None = None) -> None:
        super().__init__()
        self.fc1, self.act, self.norm, self.fc2 = fc1, act, norm or nn.Identity(), fc2

    @property
    def inputs(self) -> tuple[nn.Linear, ...]:
        return (self.fc1,)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(self.norm(self.act(self.fc1(x))))


class PackedGatedMlp(Mlp):
    """fc2(norm(act(gate) * value)), the two being halves of fc1's result."""

    def forward(self, x: Tensor) -> Tensor:
        gate, value = self.fc1(x).chunk(2, -1)
        return self.fc2(self.norm(self.act(gate) * value))


class GatedMlp(nn.Module):
    """fc2(norm(act(fc1_g(x)) * fc1_x(x)))."""

    def __init__(
        self, gate: nn.Linear, value: nn.Linear, act: nn.Module, fc2: nn.Linear, norm: nn.Module | None = None
    ) -> None:
        super().__init__()
        self.fc1_g, self.fc1_x, self.act, self.norm, self.fc2 = gate, value, act, norm or nn.Identity(), fc2

    @property
    def inputs(self) -> tuple[nn.Linear, ...]:
        return (self.fc1_g, self.fc1_x)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(self.norm(self.act(self.fc1_g(x)) * self.fc1_x(x)))


class Scale(nn.Module):
    """A factor for each channel: LayerScale."""

    def __init__(self, gamma: Tensor) -> None:
        super().__init__()
        self.gamma = nn.Parameter(gamma.detach().clone(), False)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gamma


class Block(nn.Module):
    """x + ls1(attn(norm1(x))), then x + ls2(mlp(norm2(x))). Tokens x are (batch, tokens, channels)."""

    def __init__(
        self,
        norm1: nn.Module,
        attn: Attention,
        norm2: nn.Module,
        mlp: Mlp | GatedMlp,
        *,
        scales: tuple[Tensor | None, Tensor | None] = (None, None),
    ) -> None:
        super().__init__()
        self.norm1, self.attn, self.norm2, self.mlp = norm1, attn, norm2, mlp
        self.ls1, self.ls2 = (nn.Identity() if scale is None else Scale(scale) for scale in scales)

    def readers(self, name: str) -> Iterator[NormReaders]:
        """The norms of the residual stream that only Linear layers read; `name` is the block's."""
        yield NormReaders(f"{name}.norm1", self, "norm1", self.attn.inputs)
        yield NormReaders(f"{name}.norm2", self, "norm2", self.mlp.inputs)

    def inner_readers(self, name: str) -> Iterator[NormReaders]:
        """The same of norms inside attention and MLP."""
        yield NormReaders(f"{name}.mlp.norm", self.mlp, "norm", (self.mlp.fc2,))
        if self.attn.gate is None:
            yield NormReaders(f"{name}.attn.norm", self.attn, "norm", (self.attn.proj,))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.ls1(self.attn(self.norm1(x)))
        return x + self.ls2(self.mlp(self.norm2(x)))


class PostNormBlock(Block):
    """x + norm1(attn(x)), then x + norm2(mlp(x))."""

    def readers(self, name: str) -> Iterator[NormReaders]:
        return iter(())

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.norm1(self.attn(x))
        return x + self.norm2(self.mlp(x))


@torch.no_grad()
def joined(*layers: nn.Linear) -> nn.Linear:
    """One Linear with the rows of several that read the same; biases are zero where one has none."""
    weight = torch.cat([layer.weight for layer in layers])
    biased = any(layer.bias is not None for layer in layers)
    made = nn.Linear(weight.shape[1], weight.shape[0], bias=biased, device=weight.device, dtype=weight.dtype)
    made.weight.copy_(weight)
    if biased:
        made.bias.copy_(torch.cat([_bias_of(layer) for layer in layers]))
    return made.requires_grad_(False)


def _bias_of(layer: nn.Linear) -> Tensor:
    return torch.zeros_like(layer.weight[:, 0]) if layer.bias is None else layer.bias


@torch.no_grad()
def with_bias(layer: nn.Linear, *parts: Tensor | None) -> nn.Linear:
    """The Linear with another bias, in parts; None leaves it as it is."""
    found = [part for part in parts if part is not None]
    if not found:
        return layer
    made = joined(layer)
    made.bias = nn.Parameter(torch.cat(found).detach() + _bias_of(layer), False)
    return made
