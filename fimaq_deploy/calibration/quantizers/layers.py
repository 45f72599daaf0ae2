"""Quantized layers, and the quantizers of an attention's operands.

Each layer computes in three ways: in full precision (the original weights, no quantizer), as a learnable fake-quant,
and frozen, when integer weights (or those of a floating-point format) go through `torch.ops.fimaq` exactly as the
exported graph computes them.

Placement: every Linear and the patch convolution quantize their input and weights; attention quantizes q, k, v and the
softmax output, all four or none. Residual adds, norms, GELU and softmax stay in high precision. Measured on
TensorRT-RTX 1.7.1: with q, k and v quantized after the split of a fused qkv projection, all four GEMMs of a block run
in INT8 and attention is one INT8 kernel.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fimaq_deploy.calibration.quantizers.block_floats import block_scales, tensor_scale
from fimaq_deploy.calibration.quantizers.fake_quant import (
    ActivationQuantizer,
    WeightQuantizer,
    freeze_activations,
    short_scale,
)
from fimaq_deploy.calibration.quantizers.grid import AnyActivationGrid, AnyWeightGrid, FloatWeightGrid
from fimaq_deploy.calibration.quantizers.of_grid import activation_quantizer, weight_quantizer
from fimaq_deploy.models.families.attention import Operands


class QuantizedLayer(nn.Module):
    """What Linear and convolution share: an input quantizer, a weight quantizer and the three ways to compute."""

    q_weight: Tensor
    q_scale: Tensor

    def __init__(self, layer: nn.Linear | nn.Conv2d, weights: AnyWeightGrid, inputs: AnyActivationGrid | None) -> None:
        super().__init__()
        self.weight, self.bias = layer.weight, layer.bias
        self.quantized, self.frozen = False, False
        self.held: Tensor | None = None
        self.block_size = weights.block_size
        self.input_quantizer = activation_quantizer(inputs)
        flat = layer.weight.flatten(1)
        self.weight_quantizer: WeightQuantizer = weight_quantizer(weights, *flat.shape)
        self.register_buffer("q_weight", torch.empty(0, dtype=self.storage))
        self.register_buffer("q_scale", torch.empty(0))

    @property
    def storage(self) -> torch.dtype:
        """The type of the frozen weights."""
        found: torch.dtype = getattr(torch, self.weight_quantizer.grid.storage)
        return found

    @property
    def matrix(self) -> Tensor:
        """The full-precision weights as [out, in]."""
        return self.weight.flatten(1)

    def effective_weight(self) -> Tensor:
        if not self.quantized:
            return self.weight
        if self.held is not None:
            return self.held
        return self.weight_quantizer().view_as(self.weight)

    def steps(self) -> Tensor:
        """`weight / scale` with the frozen scales, [out, in]."""
        quantizer = self.weight_quantizer
        _, scale = self._learnable(self.q_weight.float(), self.q_scale)
        return self.matrix / quantizer.expand(scale.reshape(quantizer.scale.shape))

    def enable(self, on: bool) -> None:
        self.quantized = on
        self.input_quantizer.enabled = on

    def freeze(self) -> None:
        """Fix the integers, in the layout that the exported graph stores."""
        freeze(self)

    def store(self, scale: Tensor) -> None:
        """Keep the integers as they stand, and these scales [out, blocks]."""
        self.q_weight, self.q_scale = self._stored(self.weight_quantizer.integers().to(self.storage), scale)
        self.frozen = True

    @torch.no_grad()
    def thaw(self) -> None:
        """Make the frozen integers learnable again."""
        quantizer = self.weight_quantizer
        integers, scale = self._learnable(self.q_weight.float(), self.q_scale)
        quantizer.latent.copy_(integers)
        quantizer.scale.copy_(scale.reshape(quantizer.scale.shape))
        self.frozen = self.input_quantizer.frozen = False

    def stored_form(self) -> dict[str, Tensor]:
        """Type and shape of the frozen integers and scales, as tensors without numbers."""
        integers = torch.empty(self.matrix.shape, dtype=self.storage, device="meta")
        scale = torch.empty(self.weight_quantizer.scale.shape, device="meta")
        return dict(zip(("q_weight", "q_scale"), self._stored(integers, scale), strict=True))

    def _stored(self, integers: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
        raise NotImplementedError

    def _learnable(self, stored: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
        raise NotImplementedError


class QuantizedLinear(QuantizedLayer):
    """A Linear. Frozen weights are [in, out] with scales [out], or [in / block, out] for INT4 blocks."""

    def _stored(self, integers: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
        per_channel = self.block_size is None
        return integers.t().contiguous(), scale[:, 0].clone() if per_channel else scale.t().contiguous()

    def _learnable(self, stored: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
        return stored.t(), scale.t() if scale.ndim == 2 else scale

    def _dequantized(self) -> Tensor:
        block = self.block_size
        if block is None:
            return torch.ops.fimaq.dequantize_weight(self.q_weight, self.q_scale, 1)
        return torch.ops.fimaq.dequantize_weight_blocked(self.q_weight, self.q_scale, block)

    def forward(self, x: Tensor) -> Tensor:
        x = self.input_quantizer(x)
        if not (self.frozen and self.quantized):
            return F.linear(x, self.effective_weight(), self.bias)
        y = torch.matmul(x, self._dequantized())
        return y if self.bias is None else y + self.bias


class BlockFloatLinear(QuantizedLinear):
    """A Linear in NVFP4. Frozen weights are E2M1 values [in, out], held in E4M3, with scales [in / block, out] in E4M3
    and one number for all of them, which is a power of two.
    """

    q_tensor_scale: Tensor

    def __init__(self, layer: nn.Linear, weights: FloatWeightGrid, inputs: AnyActivationGrid | None) -> None:
        super().__init__(layer, weights, inputs)
        self.register_buffer("q_tensor_scale", torch.ones(()))
        self.q_scale = self.q_scale.to(self.storage)

    def store(self, scale: Tensor) -> None:
        self.q_tensor_scale = tensor_scale(scale)
        super().store(scale)

    def _stored(self, integers: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
        scales = scale if scale.is_meta else block_scales(scale, self.q_tensor_scale)
        return integers.t().contiguous(), scales.to(self.storage).t().contiguous()

    def _learnable(self, stored: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
        return stored.t(), (scale.float() * self.q_tensor_scale).t()

    def _dequantized(self) -> Tensor:
        found: Tensor = torch.ops.fimaq.dequantize_weight_nvfp4(
            self.q_weight, self.q_scale, self.q_tensor_scale, self.block_size
        )
        return found


class QuantizedConv2d(QuantizedLayer):
    """A convolution with one scale per output channel. Frozen weights keep their layout [out, in, kh, kw]."""

    def __init__(self, layer: nn.Conv2d, weights: AnyWeightGrid, inputs: AnyActivationGrid | None) -> None:
        super().__init__(layer, weights, inputs)
        self.stride, self.padding = layer.stride, layer.padding
        self.dilation, self.groups = layer.dilation, layer.groups

    def _stored(self, integers: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
        return integers.view(self.weight.shape).clone(), scale[:, 0].clone()

    def _learnable(self, stored: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
        return stored.flatten(1), scale

    def forward(self, x: Tensor) -> Tensor:
        x = self.input_quantizer(x)
        if self.frozen and self.quantized:
            weight = torch.ops.fimaq.dequantize_weight(self.q_weight, self.q_scale, 0)
        else:
            weight = self.effective_weight()
        return F.conv2d(x, weight, self.bias, self.stride, self.padding, self.dilation, self.groups)


class AttentionQuantizers(Operands):
    """The four quantizers inside attention; all of them or, with a grid of None, none."""

    softmax: ActivationQuantizer

    def __init__(self, operands: AnyActivationGrid | None, softmax: AnyActivationGrid | None) -> None:
        super().__init__()
        self.q = activation_quantizer(operands)
        self.k = activation_quantizer(operands)
        self.v = activation_quantizer(operands)
        self.softmax = activation_quantizer(softmax, nonnegative=True)

    def weights(self, products: Tensor, scale: float | Tensor | None = None) -> Tensor:
        if isinstance(scale, Tensor):
            products, scale = products * scale, None
        fused = self.softmax.of_softmax(products, 1.0 if scale is None else scale)
        return super().weights(products, scale) if fused is None else fused


def quantized_layers(module: nn.Module) -> Iterator[tuple[str, QuantizedLayer]]:
    """The quantized Linear and convolution layers below a module, in definition order."""
    return ((name, layer) for name, layer in module.named_modules() if isinstance(layer, QuantizedLayer))


@contextmanager
def weights_held(module: nn.Module) -> Iterator[None]:
    """Inside, weights below a module that are being learned are made once, for all passes without gradients."""
    found = (layer for layer in module.modules() if isinstance(layer, QuantizedLayer))
    layers = [layer for layer in found if layer.quantized and not layer.frozen]
    for layer in layers:
        layer.held = layer.effective_weight()
    try:
        yield
    finally:
        for layer in layers:
            layer.held = None


def activation_quantizers(module: nn.Module) -> Iterator[tuple[str, ActivationQuantizer]]:
    """The activation quantizers below a module that have a grid, in definition order."""
    found = ((name, m) for name, m in module.named_modules() if isinstance(m, ActivationQuantizer))
    return ((name, quantizer) for name, quantizer in found if quantizer.grid is not None)


def high_precision_parameters(module: nn.Module) -> list[nn.Parameter]:
    """Biases, norms and the like, ready to be learned: every parameter below a module but the weights of its layers."""
    layers = (layer for layer in module.modules() if isinstance(layer, QuantizedLayer | nn.Linear | nn.Conv2d))
    owned = {id(layer.weight) for layer in layers}
    found = [
        parameter
        for name, parameter in module.named_parameters()
        if "quantizer" not in name and id(parameter) not in owned
    ]
    for parameter in found:
        parameter.requires_grad_()
    return found


def enable_quantization(module: nn.Module, on: bool) -> None:
    """Switch everything below a module between full precision and fake-quant."""
    for _, layer in quantized_layers(module):
        layer.enable(on)
    for _, quantizer in activation_quantizers(module):
        quantizer.enabled = on


@torch.no_grad()
def freeze(module: nn.Module) -> None:
    """Fix all integers and scales below a module."""
    groups: dict[int, list[QuantizedLayer]] = {}
    for _, layer in quantized_layers(module):
        groups.setdefault(layer.weight_quantizer.scale_digits, []).append(layer)
    for digits, layers in groups.items():
        scales = [layer.weight_quantizer.scale for layer in layers]
        short = short_scale(torch.cat([scale.view(-1) for scale in scales]), digits)
        for layer, scale, part in zip(layers, scales, short.split([s.numel() for s in scales]), strict=True):
            layer.store(part.view(scale.shape))
    freeze_activations([quantizer for _, quantizer in activation_quantizers(module)])


def thaw(module: nn.Module) -> None:
    """Undo `freeze`: the integers and scales below a module can be learned again."""
    for _, layer in quantized_layers(module):
        layer.thaw()
    for _, quantizer in activation_quantizers(module):
        quantizer.frozen = False


def strip(module: nn.Module) -> None:
    """Drop what only learning needed, the full-precision weights above all, from everything frozen below a module."""
    for _, layer in quantized_layers(module):
        layer.register_parameter("weight", None)
        layer.weight_quantizer = None  # type: ignore[assignment]  # nobody asks a frozen layer for it
