"""How a recipe and a target decide about a layer or an attention: its grids, or why it stays in high precision.

A layer is left alone where a target computes it no faster in integers: where it is tiny, and, on TensorRT, where it is
a head behind a mean over tokens, a product of one row an image: its compiler needs more kernels for that in integers
than in floats (`docs/log`, "heads behind a mean"). Not the patch embedding, however small: sums of integers are exact,
so every runtime hands the same tokens to the first block, where floats would flip integers all the way.

Attention outside a target's envelope of integers is in 8-bit floats where every GPU that engines are for has those,
else left alone, and so it is where the target multiplies activations as fast in floats. A recipe can refuse either, and
ask for a head in integers all the same; its `layers` decide for single ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fimaq_deploy.calibration.network.overrides import Overrides
from fimaq_deploy.calibration.quantizers.grid import (
    FP8_SOFTMAX,
    ActivationGrid,
    AnyActivationGrid,
    AnyWeightGrid,
    FloatActivationGrid,
    FloatWeightGrid,
    WeightGrid,
    activation_grid,
    weight_grid,
)
from fimaq_deploy.errors import UserError
from fimaq_deploy.recipe import Edge, LayerOverride, Recipe
from fimaq_deploy.target import FLOATS, NVFP4_BLOCK, PRODUCTS, TENSOR, Format, Operator, ProductName, Target

_ATTENTION: tuple[Format, Format] = ("int", "fp8")
# Every way to write it was compiled (docs/log, "Four-bit weights with FP8 activations").
_NOT_BESIDE_FP8 = (
    "no kernel multiplies integers by FP8, and stored in FP8 they take its byte and its kernel; take w4a8, whose "
    "activations are INT8, or set weights.bits to 8"
)


@dataclass(frozen=True)
class LayerGrids:
    """A quantized Linear or convolution. inputs: None where its input stays in high precision (weight-only)."""

    weights: AnyWeightGrid
    inputs: AnyActivationGrid | None


@dataclass(frozen=True)
class AttentionGrids:
    """A quantized attention. operands: of q, k and v. softmax: of what the softmax returns."""

    operands: AnyActivationGrid
    softmax: AnyActivationGrid


@dataclass(frozen=True)
class Kept:
    """In high precision, and why."""

    reason: str


Decision = LayerGrids | AttentionGrids | Kept


@dataclass(frozen=True)
class LayerFacts:
    """What a decision about a product with stored weights depends on.

    inputs, outputs: of its weights as a matrix. convolution: whether they are kernels. position: patch_embed or head,
    None for all others. behind_mean: whether it reads a mean over tokens, one row an image.
    """

    name: str
    inputs: int
    outputs: int
    convolution: bool = False
    position: str | None = None
    behind_mean: bool = False


@dataclass(frozen=True)
class AttentionFacts:
    """What a decision about an attention depends on."""

    name: str
    size: int
    tokens: int


class Rules:
    """How a recipe and a target decide, whatever the layers are of: a module or a graph.

    Raises:
        UserError: the recipe's `layers` names what the model does not have.
    """

    def __init__(self, recipe: Recipe, target: Target, layers: Sequence[str], attentions: Sequence[str]) -> None:
        self.recipe, self.target = recipe, target
        self.overrides = Overrides(recipe.layers, layers=tuple(layers), attentions=tuple(attentions))

    def _edge(self, facts: LayerFacts) -> Edge:
        """The recipe's own field for a layer; one that decides nothing where it has none."""
        return Edge() if facts.position is None else getattr(self.recipe, facts.position)

    def layer(self, facts: LayerFacts) -> Decision:
        """Of a product with stored weights.

        Raises:
            UserError: the target cannot execute the grids.
        """
        own, edge = self.overrides.of(facts.name), self._edge(facts)
        form = own.format or edge.format or self.recipe.format
        reason = self._layer_reason(facts, own, edge)
        if reason is None and form == "nvfp4":
            reason = _no_blocks(facts)
        if reason:
            return Kept(reason)
        if form == "int":
            return self._integers(facts, own, edge)
        return self._floats(facts.name, form, own, edge)

    def _integers(self, facts: LayerFacts, own: LayerOverride, edge: Edge) -> LayerGrids:
        """Of a layer in integers, or with integers for its weights alone."""
        self._require("int", "layer")
        weights, inputs = self._weights(facts, own, edge), self._inputs(own, edge)
        kernel = self.target.kernel("int4" if weights.block_size else "int", "layer")
        assert kernel is not None, "required"
        if inputs is not None and TENSOR not in kernel.activations:
            raise UserError(
                f"recipe: {facts.name} has INT4 weights in blocks beside activations of {inputs.bits} bits: no kernel "
                "applies a scale in the middle of a sum; set activations.bits to 16, or weights.block_size to null"
            )
        if inputs is None and FLOATS not in kernel.activations:
            raise UserError(
                f"recipe: {facts.name} has {kernel.product.title} for its weights alone, which target "
                f"{self.target.name} multiplies with {kernel.product.title} only; set activations.bits to 8"
            )
        return LayerGrids(weights, inputs)

    def _floats(self, name: str, form: Format, own: LayerOverride, edge: Edge) -> LayerGrids:
        """Of a layer in 8-bit floats, whose bits a recipe cannot choose."""
        common, wanted = self.recipe, PRODUCTS[form].bits
        self._require(form, "layer")
        chosen = {
            "weights": own.weights.bits or edge.weight_bits or common.weights.bits,
            "activations": own.activations.bits or edge.activation_bits or common.activations.bits,
        }
        wrong = next((what for what, bits in chosen.items() if bits != wanted), None)
        if wrong:
            raise UserError(
                f"recipe: {name} is {form}, which has {wanted} bits, and its {wrong} are to have {chosen[wrong]}"
                + (
                    f": {_NOT_BESIDE_FP8}"
                    if form == "fp8" and wrong == "weights"
                    else f"; set {wrong}.bits to {wanted}"
                )
            )
        if own.weights.block_size or (common.weights.block_size and own.weights.block_size is None):
            raise UserError(
                f"recipe: {name} is {form} with weights in blocks, for which there is no kernel; set block_size to null"
            )
        if form == "nvfp4":
            return LayerGrids(FloatWeightGrid("fp4", NVFP4_BLOCK), FloatActivationGrid("fp4", block_size=NVFP4_BLOCK))
        return LayerGrids(FloatWeightGrid("fp8"), FloatActivationGrid("fp8"))

    def _require(self, form: ProductName, operator: Operator) -> None:
        refusal = self.target.refusal(form, operator)
        if refusal:
            raise UserError(refusal)

    def _layer_reason(self, facts: LayerFacts, own: LayerOverride, edge: Edge) -> str | None:
        wanted = own.quantize if own.quantize != "auto" else edge.quantize
        if wanted == "never":
            return "the recipe leaves it alone"
        if wanted == "always":
            return None
        inputs, outputs, kernel = facts.inputs, facts.outputs, self.target.integers
        if facts.position != "patch_embed" and min(inputs, outputs) < kernel.least_size:
            return f"{inputs} inputs and {outputs} outputs, below {kernel.least_size} integers gain nothing"
        if facts.behind_mean and not kernel.pooled:
            return "behind a mean over tokens integers need more kernels than floats"
        return None

    def _weights(self, facts: LayerFacts, own: LayerOverride, edge: Edge) -> WeightGrid:
        """Blocks are for layers with the recipe's own width whose inputs they divide."""
        common = self.recipe.weights
        bits = own.weights.bits or edge.weight_bits or common.bits
        block = common.block_size if bits == common.bits else None
        if own.weights.block_size is not None:
            block = own.weights.block_size or None
        if facts.convolution or (block and facts.inputs % block):
            block = None
        return weight_grid(bits, block, self.target)

    def _inputs(self, own: LayerOverride, edge: Edge) -> ActivationGrid | None:
        return self._grid(own.activations.bits or edge.activation_bits or self.recipe.activations.bits, own)

    def _grid(self, bits: int, own: LayerOverride, *, nonnegative: bool = False) -> ActivationGrid | None:
        scheme = own.activations.scheme or self.recipe.activations.scheme
        return None if bits == 16 else activation_grid(bits, scheme, self.target, nonnegative=nonnegative)

    def attention(self, facts: AttentionFacts) -> Decision:
        """Of the two products of an attention. Raises as `layer`."""
        own = self.overrides.of(facts.name)
        bits = own.activations.bits or self.recipe.activations.bits
        reason = self._attention_left(own, bits)
        if reason:
            return Kept(reason)
        form, problem = self._attention_format(facts, own)
        if problem:
            return Kept(problem)
        if form == "fp8":
            if self._follows_floats and not self._is_asked_in_floats(own):
                self._require(self.recipe.format, "layer")  # of which the recipe says more
            self._require("fp8", "attention")
            return AttentionGrids(FloatActivationGrid("fp8"), FP8_SOFTMAX)
        self._require("int", "attention")
        return self._integer_attention(own, bits)

    def _attention_left(self, own: LayerOverride, bits: int) -> str | None:
        """Why the recipe leaves an attention in high precision."""
        if self._attention_wanted(own) == "never":
            return "the recipe leaves it alone"
        if self._is_asked_in_floats(own):
            return None
        if 16 in (bits, own.softmax_bits or self.recipe.attention.softmax_bits):
            return "the recipe leaves its operands in high precision"
        return None

    def _is_asked_in_floats(self, own: LayerOverride) -> bool:
        return own.format == "fp8" or (own.format is None and self.recipe.attention.format == "fp8")

    def _attention_wanted(self, own: LayerOverride) -> str:
        return own.quantize if own.quantize != "auto" else self.recipe.attention.quantize

    def _attention_format(self, facts: AttentionFacts, own: LayerOverride) -> tuple[Format, str | None]:
        """The format of an attention, and why it stays in high precision after all."""
        target, forced = self.target, self._attention_wanted(own) == "always"
        integers, floats = (target.kernel(form, "attention") for form in _ATTENTION)
        short = floats.broken_rule(facts.size, facts.tokens) if floats else None
        if self._is_asked_in_floats(own) or (own.format is None and self._follows_floats):
            return "fp8", None if forced else short
        if forced:
            return "int", None
        if integers is None:
            broken: str | None = f"target {target.name} executes no {PRODUCTS['int'].title} attention"
        elif not integers.faster:
            return "int", "floats are as fast for products of two activations"
        else:
            broken = integers.broken_rule(facts.size, facts.tokens)
        if broken is None or floats is None or short or "int" in (own.format, self.recipe.attention.format):
            return "int", broken
        if target.executes_everywhere("fp8", "attention"):
            return "fp8", None
        if target.compute_capability is not None:
            return "int", f"{broken}; in its place would fuse {floats.told}"
        return "int", f"{broken}; in its place fuses {floats.told}, where --sm says so"

    @property
    def _follows_floats(self) -> bool:
        """Whether attention is in 8-bit floats because the products around it are."""
        return self.recipe.attention.format == "auto" and self.recipe.format != "int"

    def _integer_attention(self, own: LayerOverride, bits: int) -> AttentionGrids:
        kernel = self.target.kernel("int", "attention")
        least = kernel.shapes.least_softmax_bits if kernel else 0
        softmax_bits = own.softmax_bits or self.recipe.attention.softmax_bits or max(bits, least)
        operands = self._grid(bits, own)
        softmax = self._grid(softmax_bits, own, nonnegative=True)
        assert operands is not None and softmax is not None
        return AttentionGrids(operands, softmax)


def _no_blocks(facts: LayerFacts) -> str | None:
    """Why a layer cannot have blocks of 4-bit floats."""
    if facts.convolution:
        return "no kernel convolves 4-bit floats"
    if facts.inputs % NVFP4_BLOCK:
        return f"{facts.inputs} inputs do not divide into blocks of {NVFP4_BLOCK}"
    return None
