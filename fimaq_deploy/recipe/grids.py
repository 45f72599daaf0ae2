"""The grids of weights and activations: everywhere, at the edges, in attention and in single layers."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from fimaq_deploy.recipe.values import ActivationBits, Section, WeightBits
from fimaq_deploy.target import Format


class Weights(Section):
    """Weight grid of every layer that has no field of its own."""

    bits: WeightBits = 8
    block_size: Literal[16, 32, 64, 128, 256] | None = Field(
        default=None,
        description="None: one scale per output channel. A length: INT4 weight-only blocks of input channels; "
        "layers whose input width is no multiple of it keep one scale per output channel.",
    )


class Activations(Section):
    """Activation grid of every tensor that has no field of its own. 16 bits: left in high precision."""

    bits: ActivationBits = 8
    scheme: Literal["auto", "symmetric", "asymmetric"] = Field(
        default="auto",
        description="auto: asymmetric where the target executes it at these bits at no cost, else symmetric.",
    )


class Edge(Section):
    """The patch embedding and the classifier head; bits of None are the recipe's own."""

    quantize: Literal["auto", "always", "never"] = Field(
        default="auto",
        description="auto: but for heads that gain nothing on a target; always; never: in high precision.",
    )
    weight_bits: WeightBits | None = None
    activation_bits: ActivationBits | None = None
    format: Format | None = Field(default=None, description="As the recipe's; None: the recipe's own.")


class Attention(Section):
    """The two matmuls inside attention."""

    quantize: Literal["auto", "always", "never"] = Field(
        default="auto",
        description="auto: wherever the target is faster with INT8 attention; always; never: in high precision.",
    )
    softmax_bits: ActivationBits | None = Field(
        default=None,
        description="Bits of the attention weights; None: as activations, or more where only more bits fuse.",
    )
    format: Literal["auto", "int", "fp8"] = Field(
        default="auto",
        description="auto: as the recipe's format, and fp8 where integers do not fuse but fp8 does on every GPU that "
        "engines are for; int; fp8: 8-bit floats, whose attention fuses whatever the head size and the tokens.",
    )


class LayerWeights(Section):
    """Weights of single layers; None: the recipe's own."""

    bits: WeightBits | None = None
    block_size: Literal[0, 16, 32, 64, 128, 256] | None = Field(
        default=None, description="0: one scale per output channel where the recipe has blocks."
    )


class LayerActivations(Section):
    """Inputs of single layers, or q, k and v of single attentions; None: the recipe's own."""

    bits: ActivationBits | None = None
    scheme: Literal["auto", "symmetric", "asymmetric"] | None = None


class LayerOverride(Section):
    """What is different for the layers and attentions that a pattern names."""

    quantize: Literal["auto", "always", "never"] = Field(
        default="auto", description="auto: as without this entry; always: also where integers gain nothing; never."
    )
    weights: LayerWeights = LayerWeights()
    activations: LayerActivations = LayerActivations()
    softmax_bits: ActivationBits | None = Field(default=None, description="Of an attention's weights.")
    format: Format | None = Field(default=None, description="Of a layer or an attention; None: the recipe's own.")

    def updated(self, later: LayerOverride) -> LayerOverride:
        """Both, field by field; what the later one sets wins."""
        return LayerOverride(
            quantize=self.quantize if later.quantize == "auto" else later.quantize,
            weights=self.weights.model_copy(update=later.weights.model_dump(exclude_none=True)),
            activations=self.activations.model_copy(update=later.activations.model_dump(exclude_none=True)),
            softmax_bits=later.softmax_bits or self.softmax_bits,
            format=later.format or self.format,
        )
