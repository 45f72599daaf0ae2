"""A small frozen quantized model written by hand, the way calibration freezes one, and what exporting it gives."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fimaq_deploy.calibration import ops as _ops  # noqa: F401  (registers torch.ops.fimaq)
from fimaq_deploy.export import Traced, trace

SHAPE = (3, 8, 8)
Span = tuple[int, int, int]  # zero point, low, high

INT8, INT4, OFFSET, UINT8, SOFTMAX = (0, -128, 127), (0, -8, 7), (0, -5, 10), (131, 0, 255), (0, 0, 127)


def half_exact(value: Tensor) -> Tensor:
    return value.half().float()


class Quantize(nn.Module):
    """Per-tensor fake quantization that covers about [-3, 3]."""

    def __init__(self, span: Span | None, reach: float = 3.0) -> None:
        super().__init__()
        self.span = span
        if span is not None:
            zero, low, high = span
            self.register_buffer("scale", half_exact(torch.tensor(reach / max(zero - low, high - zero))))

    def forward(self, x: Tensor) -> Tensor:
        if self.span is None:
            return x
        zero, low, high = self.span
        return torch.ops.fimaq.quantize_dequantize(x, self.scale, zero, low, high)


class Linear(nn.Module):
    """[in, out] integer weights with a scale per output channel, or per block of inputs."""

    def __init__(self, inputs: int, outputs: int, span: Span | None, bits: int = 8, block: int | None = None) -> None:
        super().__init__()
        top = 2 ** (bits - 1)
        self.block = block
        self.quantize = Quantize(span)
        rows = () if block is None else (inputs // block,)
        self.register_buffer("q", torch.randint(-top, top, (inputs, outputs), dtype=torch.int8))
        self.register_buffer("scale", half_exact((0.5 + torch.rand(*rows, outputs)) / (top * inputs**0.5)))
        self.bias = nn.Parameter(half_exact(torch.randn(outputs)))

    def forward(self, x: Tensor) -> Tensor:
        if self.block is None:
            weight = torch.ops.fimaq.dequantize_weight(self.q, self.scale, 1)
        else:
            weight = torch.ops.fimaq.dequantize_weight_blocked(self.q, self.scale, self.block)
        return torch.matmul(self.quantize(x), weight) + self.bias


class Patches(nn.Module):
    def __init__(self, width: int, span: Span | None) -> None:
        super().__init__()
        self.quantize = Quantize(span)
        self.register_buffer("q", torch.randint(-128, 128, (width, 3, 2, 2), dtype=torch.int8))
        self.register_buffer("scale", half_exact((0.5 + torch.rand(width)) / 400))
        self.bias = nn.Parameter(half_exact(torch.randn(width)))

    def forward(self, images: Tensor) -> Tensor:
        weight = torch.ops.fimaq.dequantize_weight(self.q, self.scale, 0)
        x = nn.functional.conv2d(self.quantize(images), weight, self.bias, stride=2)
        return x.flatten(2).transpose(1, 2)


class Block(nn.Module):
    def __init__(self, width: int, heads: int, span: Span | None, softmax: Span | None, **weights: Any) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(width)
        self.qkv, self.proj = Linear(width, 3 * width, span, **weights), Linear(width, width, span, **weights)
        self.operands = nn.ModuleList(Quantize(span) for _ in range(3))
        self.softmax = Quantize(softmax, reach=1.0)

    def forward(self, x: Tensor) -> Tensor:
        batch, tokens, width = x.shape
        parts = self.qkv(self.norm(x)).reshape(batch, tokens, 3, self.heads, width // self.heads)
        q, k, v = (quantize(part) for quantize, part in zip(self.operands, parts.permute(2, 0, 3, 1, 4), strict=True))
        weights = self.softmax((q @ k.transpose(-2, -1) / 4).softmax(-1))
        return x + self.proj((weights @ v).transpose(1, 2).reshape(batch, tokens, width))


class Head(nn.Module):
    """pool: "mean" of the tokens, or "first", the class token of a ViT."""

    def __init__(self, width: int, classes: int, span: Span | None, pool: str = "mean") -> None:
        super().__init__()
        self.pool = pool
        self.norm, self.fc = nn.LayerNorm(width), Linear(width, classes, span)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.norm(x)
        return self.fc(tokens[:, 0] if self.pool == "first" else tokens.mean(1))


class Tiny(nn.Module):
    """16 tokens, 2 heads, one block; `stages` as a QuantizedModel has them."""

    def __init__(
        self,
        span: Span | None = INT8,
        softmax: Span | None = SOFTMAX,
        width: int = 32,
        pool: str = "mean",
        **weights: Any,
    ) -> None:
        super().__init__()
        edge = None if span is None else INT8
        self.parts = nn.ModuleList(
            [Patches(width, edge), Block(width, 2, span, softmax, **weights), Head(width, 10, edge, pool)]
        )

    @property
    def stages(self) -> list[Any]:
        return [SimpleNamespace(name=f"parts.{number}", module=part) for number, part in enumerate(self.parts)]

    def forward(self, images: Tensor) -> Tensor:
        for part in self.parts:
            images = part(images)
        return images


MODELS: dict[str, Callable[[], Tiny]] = {
    "w8a8": Tiny,
    "w4a4": lambda: Tiny(INT4, (0, 0, 15), bits=4),
    "offset": lambda: Tiny(OFFSET, (0, 0, 15), bits=3),
    "unsigned": lambda: Tiny(UINT8, (0, 0, 255)),
    "w4a16": lambda: Tiny(None, None, width=128, bits=4, block=64),
    "class-token": lambda: Tiny(pool="first"),
}


@pytest.fixture(scope="session")
def images() -> Tensor:
    return torch.randn(6, *SHAPE, generator=torch.Generator().manual_seed(3))


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., tuple[Tiny, Path]]:
    """A model of `MODELS` by name, and its file for a target. Each model is traced once."""
    folder = tmp_path_factory.mktemp("onnx")

    @cache
    def traced(name: str) -> tuple[Tiny, Traced]:
        torch.manual_seed(0)
        model = MODELS[name]().eval()
        return model, trace(model, SHAPE)

    @cache
    def make(name: str, target: str | None = None) -> tuple[Tiny, Path]:
        model, graph = traced(name)
        return model, graph.write(folder / f"{name}.{target}.onnx", target)

    return make


@pytest.fixture
def every_row(exported, tmp_path, monkeypatch) -> Callable[[str], Path]:
    """Writes the model with a class token for a target without `rows`: its last block computes every row."""
    traced = trace(exported("class-token")[0], SHAPE)

    def write(target: str) -> Path:
        with monkeypatch.context() as patch:
            patch.setattr("fimaq_deploy.export.rows.drop_unread_rows", lambda graph: None)
            return traced.write(tmp_path / "every-row.onnx", target)

    return write
