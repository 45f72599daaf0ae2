"""What to do with a model, as one strict value that is read from YAML."""

from fimaq_deploy.recipe.grids import (
    Activations,
    Attention,
    Edge,
    LayerActivations,
    LayerOverride,
    LayerWeights,
    Weights,
)
from fimaq_deploy.recipe.recipe import AUTO, PRESETS, Recipe
from fimaq_deploy.recipe.steps import (
    EFFORTS,
    Effort,
    Loss,
    Precision,
    Reconstruction,
    Rewrites,
    Rounding,
    ScaleSearch,
    Tuning,
)

__all__ = [
    "AUTO",
    "EFFORTS",
    "PRESETS",
    "Activations",
    "Attention",
    "Edge",
    "Effort",
    "LayerActivations",
    "LayerOverride",
    "LayerWeights",
    "Loss",
    "Precision",
    "Recipe",
    "Reconstruction",
    "Rewrites",
    "Rounding",
    "ScaleSearch",
    "Tuning",
    "Weights",
]
