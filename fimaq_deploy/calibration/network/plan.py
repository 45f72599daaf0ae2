"""What becomes of each layer and each attention: its grids, or the reason why it stays in high precision.

A plan is made once, from the model, the recipe, the target and the sequence lengths. The quantized copy is built from
it, it is saved with the quantized weights, and a saved model is built from the saved plan: a target's rules may change,
what was quantized under earlier ones stays what it is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from torch import nn

from fimaq_deploy.calibration.network.attentions import attentions_of
from fimaq_deploy.calibration.network.rules import (
    AttentionFacts,
    AttentionGrids,
    Decision,
    Kept,
    LayerFacts,
    LayerGrids,
    Rules,
)
from fimaq_deploy.calibration.quantizers.grid import (
    ActivationGrid,
    AnyActivationGrid,
    AnyWeightGrid,
    FloatActivationGrid,
    FloatWeightGrid,
    WeightGrid,
)
from fimaq_deploy.errors import UserError
from fimaq_deploy.models.families import family_of
from fimaq_deploy.models.families.family import Family
from fimaq_deploy.recipe import Recipe
from fimaq_deploy.target import Format, Operator, Target


@dataclass(frozen=True)
class Plan(Mapping[str, Decision]):
    """A decision for every layer and attention of a model, by name, in the model's order."""

    decisions: Mapping[str, Decision]

    def __getitem__(self, name: str) -> Decision:
        return self.decisions[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.decisions)

    def __len__(self) -> int:
        return len(self.decisions)

    @property
    def kept(self) -> dict[str, str]:
        """What stays in high precision, each with the reason."""
        return {name: decision.reason for name, decision in self.items() if isinstance(decision, Kept)}

    @property
    def float_products(self) -> list[tuple[Format, Operator]]:
        """The kinds of products in 8- or 4-bit floats that there are."""
        found: list[tuple[Format, Operator]] = []
        for decision in self.values():
            if isinstance(decision, LayerGrids) and isinstance(decision.weights, FloatWeightGrid):
                found.append((decision.weights.product, "layer"))
            elif isinstance(decision, AttentionGrids) and isinstance(decision.operands, FloatActivationGrid):
                found.append(("fp8", "attention"))
        return list(dict.fromkeys(found))

    def notes(self) -> tuple[str, ...]:
        """What stays in high precision, one sentence for each reason."""
        named: dict[str, list[str]] = {}
        for name, reason in self.kept.items():
            named.setdefault(reason, []).append(name)
        return tuple(
            f"{names[0]}{f' and {len(names) - 1} more' if len(names) > 1 else ''} left in high precision: {reason}"
            for reason, names in named.items()
        )

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {name: asdict(decision) for name, decision in self.items()}

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Plan:
        """Of `as_dict`.

        Raises:
            UserError: it is not a plan that this version understands.
        """
        try:
            return cls({name: _decision(one) for name, one in fields.items()})
        except (TypeError, KeyError, AttributeError):
            raise UserError("the saved plan of the layers is damaged or of a newer version: quantize again") from None


def _decision(fields: Mapping[str, Any]) -> Decision:
    if "reason" in fields:
        return Kept(**fields)
    if "weights" in fields:
        inputs = fields["inputs"]
        return LayerGrids(_weights(fields["weights"]), None if inputs is None else _activations(inputs))
    return AttentionGrids(_activations(fields["operands"]), _activations(fields["softmax"]))


def _weights(fields: Mapping[str, Any]) -> AnyWeightGrid:
    return FloatWeightGrid(**fields) if "format" in fields else WeightGrid(**fields)


def _activations(fields: Mapping[str, Any]) -> AnyActivationGrid:
    return FloatActivationGrid(**fields) if "format" in fields else ActivationGrid(**fields)


def make_plan(model: nn.Module, recipe: Recipe, target: Target, tokens: Mapping[str, int]) -> Plan:
    """Decide for every layer and attention of an explicit copy that is not quantized yet.

    tokens: the sequence length that each attention sees, by name.

    Raises:
        UserError: the target cannot execute the recipe's grids, or `layers` names what the model does not have.
    """
    planner = _Planner(model, recipe, target, tokens)
    return Plan(dict(planner.decisions()))


class _Planner:
    """The facts of a module's layers and attentions, and what is decided of them."""

    def __init__(self, model: nn.Module, recipe: Recipe, target: Target, tokens: Mapping[str, int]) -> None:
        self.model, self.tokens = model, tokens
        self.family: Family = family_of(model)
        self.heads = attentions_of(model)
        self.layers = {name: one for name, one in model.named_modules() if isinstance(one, nn.Linear | nn.Conv2d)}
        self.rules = Rules(recipe, target, tuple(self.layers), tuple(self.heads))
        self.kept = self.family.kept(model)

    def decisions(self) -> Iterator[tuple[str, Decision]]:
        for name, _ in self.model.named_modules():
            if name in self.kept and (name in self.heads or name in self.layers):
                yield name, Kept(self.kept[name])
            elif name in self.heads:
                yield name, self.rules.attention(AttentionFacts(name, self.heads[name].size, self.tokens[name]))
            elif name in self.layers:
                yield name, self.rules.layer(self._facts(name, self.layers[name]))

    def _facts(self, name: str, layer: nn.Linear | nn.Conv2d) -> LayerFacts:
        outputs, inputs = layer.weight.flatten(1).shape
        position = self.family.position(name)
        pooled = position == "head" and self.family.head_reads_a_mean(self.model)
        return LayerFacts(name, inputs, outputs, isinstance(layer, nn.Conv2d), position, pooled)
