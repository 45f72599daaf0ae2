"""timm's SwinTransformer: windows with a relative position bias, shifted ones with a mask, and patch merging."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from timm.models import swin_transformer
from timm.models.swin_transformer import (
    PatchMerging,
    SwinTransformer,
    SwinTransformerBlock,
    SwinTransformerStage,
    WindowAttention,
)
from torch import Tensor, nn

from fimaq_deploy.models.families.attention import ExplicitAttention
from fimaq_deploy.models.families.family import Family, expect
from fimaq_deploy.models.families.roles import Edge, Heads, NormReaders, Stage, Stream
from fimaq_deploy.models.families.timm import Head, block_norms, embedded_shape, expect_plain_stem

# What a shifted window's mask adds to the scores of tokens that are hidden. With timm's -100 a hidden token weighs
# e^-100, a denormal number: nothing to the sum, but ten times the time of the product with v on a CPU. This weighs 0.
_HIDDEN = -1e4


class SwinAttention(ExplicitAttention):
    """timm's Swin `WindowAttention`. Windows x are (windows * batch, tokens, channels)."""

    relative_position_index: Tensor

    def __init__(self, attention: Any) -> None:
        super().__init__(attention.qkv, attention.proj, attention.num_heads, attention.scale)
        self.relative_position_bias_table = attention.relative_position_bias_table
        self.window_area = attention.window_area
        self.register_buffer("relative_position_index", attention.relative_position_index, persistent=False)
        self.quantize()

    def _bias(self, mask: Tensor | None) -> Tensor:
        """Relative position bias, (1, heads, tokens, tokens) or with the shifted-window mask (windows, heads, ...)."""
        area = self.window_area
        table = self.relative_position_bias_table[self.relative_position_index.view(-1)]
        bias = table.view(area, area, -1).permute(2, 0, 1).unsqueeze(0)
        return bias if mask is None else bias + mask.unsqueeze(1)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        q, k, v = self.split(x)
        return self.proj(self.attend(q, k, v, self._bias(mask)))


class _Patches(Edge):
    """Images to tokens (batch, rows, columns, channels)."""

    def forward(self, images: Tensor) -> Tensor:
        return self.model.patch_embed(images)


class Swin(Family):
    name = "swin"
    kinds = ("timm SwinTransformer",)

    def claims(self, model: object) -> bool:
        return isinstance(model, SwinTransformer)

    def stages(self, model: Any) -> list[Stage]:
        first, last = _Patches(model, ("patch_embed",)), Head(model, ("norm", "head"))
        inner = [stage for index, layer in enumerate(model.layers) for stage in _layer_stages(index, layer)]
        return [Stage("patch_embed", first), *inner, Stage("head", last)]

    def image_shape(self, model: Any) -> tuple[int, int, int]:
        return embedded_shape(model.patch_embed)

    def heads(self, model: Any) -> Iterator[Heads]:
        for name, block in _blocks(model):
            yield Heads(f"{name}.attn", block.attn.qkv, block.attn.proj, block.attn.num_heads)

    def spelled_out(self, attention: nn.Module) -> ExplicitAttention:
        return SwinAttention(attention)

    def prepare(self, copy: Any) -> None:
        for _, block in _blocks(copy):
            if block.attn_mask is not None:
                block.attn_mask = block.attn_mask.masked_fill(block.attn_mask < 0, _HIDDEN)

    def norms(self, model: Any) -> Iterator[NormReaders]:
        for index, layer in enumerate(model.layers):
            if type(layer.downsample) is PatchMerging:
                name = f"layers.{index}.downsample.norm"
                yield NormReaders(name, layer.downsample, "norm", (layer.downsample.reduction,))
            for number, block in enumerate(layer.blocks):
                yield from block_norms(f"layers.{index}.blocks.{number}.", block, can_shift=not _pads_windows(block))

    def head_reads_a_mean(self, model: Any) -> bool:
        return "avg" in model.head.global_pool.pool_type

    def stream(self, model: nn.Module) -> Stream | str:
        return "module 'patch_embed.norm': Swin's residual stream starts at a norm, which no rotation folds into"

    def check(self, model: Any, what: str = "the model") -> None:
        expect_plain_stem(model, what)
        for index, layer in enumerate(model.layers):
            expect(f"layers.{index}", layer, (SwinTransformerStage,))
            expect(f"layers.{index}.downsample", layer.downsample, (PatchMerging, nn.Identity))
        for name, block in _blocks(model):
            expect(name, block, (SwinTransformerBlock,))
            expect(f"{name}.attn", block.attn, (WindowAttention,))
        super().check(model, what)

    def translated(self, model: Any, state: dict[str, Tensor]) -> dict[str, Tensor]:
        return swin_transformer.checkpoint_filter_fn(dict(state), model)


def _blocks(model: Any) -> Iterator[tuple[str, Any]]:
    for index, layer in enumerate(model.layers):
        for number, block in enumerate(layer.blocks):
            yield f"layers.{index}.blocks.{number}", block


def _layer_stages(index: int, layer: Any) -> Iterator[Stage]:
    if not isinstance(layer.downsample, nn.Identity):
        yield Stage(f"layers.{index}.downsample", layer.downsample)
    for number, block in enumerate(layer.blocks):
        yield Stage(f"layers.{index}.blocks.{number}", block)


def _pads_windows(block: Any) -> bool:
    """Whether norm1's output is padded with zeros, which a shift of that output would move."""
    sizes = zip(block.input_resolution, block.window_size, strict=True)
    return block.dynamic_mask or any(size % window for size, window in sizes)


FAMILY = Swin()
