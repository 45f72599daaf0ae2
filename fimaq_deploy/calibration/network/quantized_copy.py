"""A copy of a model whose layers are quantized ones, as its plan says; they compute in full precision until enabled."""

from __future__ import annotations

import copy

from torch import nn

from fimaq_deploy.calibration.network.attentions import is_explicit, replace_module
from fimaq_deploy.calibration.network.plan import Plan
from fimaq_deploy.calibration.network.rules import AttentionGrids, LayerGrids
from fimaq_deploy.calibration.quantizers.grid import FloatWeightGrid
from fimaq_deploy.calibration.quantizers.layers import (
    AttentionQuantizers,
    BlockFloatLinear,
    QuantizedConv2d,
    QuantizedLinear,
)
from fimaq_deploy.errors import UserError
from fimaq_deploy.models.families import family_of
from fimaq_deploy.models.families.attention import ExplicitAttention
from fimaq_deploy.models.families.roles import Stage


def explicit_copy(model: nn.Module) -> nn.Module:
    """A deep copy in eval mode whose attention is spelled out. It computes the same; its names are those of a plan."""
    family, made = family_of(model), copy.deepcopy(model)
    for heads in list(family.heads(made)):
        replace_module(made, heads.name, family.spelled_out(made.get_submodule(heads.name)))
    family.prepare(made)
    return made.eval()


def quantized_copy(model: nn.Module, plan: Plan) -> nn.Module:
    """A deep copy of the model with quantized layers and operands where the plan has grids for them.

    Raises:
        UserError: the plan is of another model.
    """
    made = copy.deepcopy(model).eval() if is_explicit(model) else explicit_copy(model)
    # The new scales are made where the model is: copying each of them there would wait as often.
    with next(model.parameters()).device:
        for name, module in list(made.named_modules()):
            if isinstance(module, ExplicitAttention):
                module.quantize(_operands(plan, name))
        for name, decision in plan.items():
            if isinstance(decision, LayerGrids):
                replace_module(made, name, _layer(_module(made, name), decision))
    return made.requires_grad_(False)


def _module(model: nn.Module, name: str) -> nn.Module:
    try:
        return model.get_submodule(name)
    except AttributeError:
        raise UserError(f"quantized weights belong to another model: this one has no module '{name}'") from None


def _layer(layer: nn.Module, grids: LayerGrids) -> nn.Module:
    if isinstance(layer, nn.Conv2d):
        return QuantizedConv2d(layer, grids.weights, grids.inputs)
    if isinstance(layer, nn.Linear) and isinstance(grids.weights, FloatWeightGrid) and grids.weights.block_size:
        return BlockFloatLinear(layer, grids.weights, grids.inputs)
    if isinstance(layer, nn.Linear):
        return QuantizedLinear(layer, grids.weights, grids.inputs)
    raise UserError(f"quantized weights belong to another model: a {type(layer).__name__} stands where a layer was")


def _operands(plan: Plan, name: str) -> AttentionQuantizers:
    grids = plan.get(name)
    return AttentionQuantizers(grids.operands, grids.softmax) if isinstance(grids, AttentionGrids) else _no_operands()


def _no_operands() -> AttentionQuantizers:
    return AttentionQuantizers(None, None)


def stages_of(model: nn.Module) -> list[Stage]:
    """The chain of a model, quantized or not, sharing its modules.

    Raises:
        UserError: no family knows it.
    """
    return family_of(model).stages(model)
