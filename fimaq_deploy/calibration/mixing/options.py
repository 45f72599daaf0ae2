"""What each layer may become: in which format, how many bytes that takes, and what it loses.

The loss of a layer in a format is measured: the model is quantized in that format whole, scales searched and nothing
learned, and then every layer is switched on alone (`findings.sensitivity`). That foretells what mixes lose once they
have learned better than the loss that a layer of a model that learned leaves: such layers make up for each other
(docs/log, budgets again).

Below eight bits activations save neither bytes nor time, for every grid runs in INT8 (`docs/log`): there is no format
with fewer. What a layer takes of the time is priced later, by product and runtime (`pipeline.costs`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from fimaq_deploy.calibration.network.rules import LayerGrids
from fimaq_deploy.calibration.quantized_model import QuantizedModel
from fimaq_deploy.calibration.quantizers.grid import FloatWeightGrid
from fimaq_deploy.calibration.quantizers.layers import quantized_layers
from fimaq_deploy.recipe import LayerActivations, LayerOverride, LayerWeights, Recipe
from fimaq_deploy.target import Format, Target

FLOATS, NVFP4 = "floats", "nvfp4"
# From the smallest to the largest.
FORMATS: dict[str, LayerOverride] = {
    "w4a8": LayerOverride(weights=LayerWeights(bits=4), activations=LayerActivations(bits=8)),
    "w8a8": LayerOverride(weights=LayerWeights(bits=8), activations=LayerActivations(bits=8)),
    "fp8": LayerOverride(format="fp8", weights=LayerWeights(bits=8), activations=LayerActivations(bits=8)),
    NVFP4: LayerOverride(format="nvfp4", weights=LayerWeights(bits=4), activations=LayerActivations(bits=4)),
    FLOATS: LayerOverride(quantize="never"),
}


@dataclass(frozen=True)
class Option:
    """A layer in a format.

    bits: that it takes in the file. loss: the Fisher loss of the outputs with only this layer quantized. work: its
    share of the time, in billionths of what all products take in floats; 0 before it is priced.
    """

    format: str
    bits: int
    loss: float
    work: int = 0


Options = Mapping[str, tuple[Option, ...]]


def formats_for(target: Target) -> tuple[str, ...]:
    """The formats of 8 bits and fewer that a target multiplies, those of integers first, the smallest first."""
    integers = ("w4a8", "w8a8") if target.executes_everywhere("int", "layer") else ()
    floats: tuple[Format, ...] = ("fp8", "nvfp4")
    return (*integers, *(one for one in floats if target.executes_everywhere(one, "layer")))


def uniform(recipe: Recipe, name: str) -> Recipe:
    """A recipe with one format for every layer that can have it. Where that is 4-bit floats, in which nothing is
    convolved, the patch embedding has INT8.
    """
    if name == NVFP4:
        edge = {"format": "int", "weight_bits": 8, "activation_bits": 8}
        own = {"format": None, "weight_bits": None, "activation_bits": None}
        bits = {"weights": {"bits": 4}, "activations": {"bits": 4}}
        return recipe.replace(format="nvfp4", patch_embed=edge, head=own, **bits)
    return recipe.replace(layers={"*": FORMATS[name].model_dump()})


def mixed(recipe: Recipe, formats: Mapping[str, str]) -> Recipe:
    """A recipe with a format for each layer; its `layers` are for users to edit."""
    return recipe.replace(layers={name: FORMATS[one].model_dump() for name, one in formats.items()})


def options_of(models: Mapping[str, QuantizedModel], bits: Mapping[str, float]) -> dict[str, tuple[Option, ...]]:
    """Of every layer that is quantized in integers; those in 4-bit floats where the layer can have them.

    models: by format, each quantized whole in it, with its sensitivity. bits: that a weight takes in the file, by
    format; of an option they are those of its weights alone.
    """
    losses = {name: {one.name: one.alone for one in model.sensitivity} for name, model in models.items()}
    found = {}
    for layer, module in quantized_layers(next(iter(models.values())).model):
        if any(layer not in losses[name] for name in models if name != NVFP4):
            continue
        weights = module.q_weight.numel()
        own = [name for name in models if name != NVFP4 or _in_blocks(models[name], layer)]
        quantized = [Option(name, round(bits[name] * weights), max(0.0, losses[name][layer])) for name in own]
        found[layer] = (*quantized, Option(FLOATS, round(bits[FLOATS] * weights), 0.0))
    return found


def _in_blocks(model: QuantizedModel, layer: str) -> bool:
    """Whether a layer is in 4-bit floats there."""
    found = model.plan.get(layer)
    return (
        isinstance(found, LayerGrids)
        and isinstance(found.weights, FloatWeightGrid)
        and found.weights.product == "nvfp4"
    )
