"""What a model says of its outputs, by the attributes that timm, torchvision and Hugging Face give their models."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import nn

_PROBLEMS = {  # `config.problem_type` of Hugging Face
    "regression": "regression",
    "single_label_classification": "classes",
    "multi_label_classification": "multilabel",
}
_CLASSIFIERS = ("head", "heads", "fc", "classifier")


@dataclass(frozen=True)
class Traits:
    """Each is None where the model says nothing.

    classes: how many its classifier tells apart, 0 without a classifier. features: the width of its vectors.
    problem: the kind of its classifier's output. kinds: of outputs by name, as the contract in a file has them.
    """

    classes: int | None = None
    features: int | None = None
    problem: str | None = None
    kinds: Mapping[str, str] = field(default_factory=dict)


def traits_of(model: object) -> Traits:
    """Of a module, or of the one that it wraps; nothing of anything else."""
    if not isinstance(model, nn.Module):
        return Traits()
    config = _first(model, "config", object)
    features = _first(model, "num_features", int) or getattr(config, "hidden_size", None)
    problem = _PROBLEMS.get(str(getattr(config, "problem_type", None)))
    return Traits(_classes(model), features if isinstance(features, int) else None, problem)


def _classes(model: nn.Module) -> int | None:
    said = _first(model, "num_classes", int)
    return int(said) if said is not None else _width_of_classifier(model)


def _first(model: nn.Module, name: str, kind: type) -> Any:
    """An attribute of the model or, in their order, of the modules inside."""
    found = (getattr(module, name, None) for module in model.modules())
    return next((value for value in found if isinstance(value, kind) and value is not None), None)


def _width_of_classifier(model: nn.Module) -> int | None:
    """Of the last linear layer under a name that classifiers have."""
    linears = [
        module
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and set(name.split(".")) & set(_CLASSIFIERS)
    ]
    return linears[-1].out_features if linears else None
