"""Which exact rewrites a full-precision model gets, and the proof that they changed nothing.

Every rewrite moves numbers between neighbouring layers and leaves the outputs as they were, up to float rounding, and
the run-time graph as large as it was: `norms`, `heads` and `rotation` hold them.

Which modules and parameters exist afterwards depends on the model and the switches only, never on the images: applying
the same rewrites with any images to the same model gives something that a saved state fits into.

Not covered: per-channel scales between fc1 and fc2 (GELU is in between), Swin's residual stream.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from fimaq_deploy.calibration.learning.outputs import tensors_of
from fimaq_deploy.calibration.rewrites.channels import logits_of
from fimaq_deploy.calibration.rewrites.heads import balance_heads, centre_values
from fimaq_deploy.calibration.rewrites.norms import NORM_STRENGTH, fold_norm_ranges
from fimaq_deploy.calibration.rewrites.rotation import rotate_heads, rotate_residual
from fimaq_deploy.errors import UserError
from fimaq_deploy.models.families import family_of
from fimaq_deploy.models.families.wrapped import innermost
from fimaq_deploy.recipe import Rewrites

KEEP_LAYER_NORM = True

_CHECKED_IMAGES = 8
_TOLERANCE = 1e-3


def resolve_rewrites(model: nn.Module, rewrites: Rewrites) -> Rewrites:
    """The rewrites with every None decided: the model family's default, or False where the structure refuses it."""
    model = innermost(model)
    family = family_of(model)
    rotates = family.rewrites["rotation"] and not isinstance(family.stream(model), str)
    defaults = {**family.rewrites, "rotation": rotates}
    asked = {field: value for field, value in rewrites.model_dump().items() if value is not None}
    return Rewrites(**{**defaults, **asked})


@torch.no_grad()
def apply_rewrites(model: nn.Module, images: Tensor, rewrites: Rewrites, seed: int) -> list[str]:
    """Rewrite the model in place as the recipe says; returns the names of the functions that were applied, in order.

    images: float32 (N, C, H, W) to measure ranges on.

    Raises:
        UserError: a rotation was asked for that the model's structure does not allow, or the logits changed because
            the model computes something that its class does not.
    """
    chosen = resolve_rewrites(model, rewrites)
    sample = images[:_CHECKED_IMAGES]
    before = tensors_of(logits_of(model, sample))
    applied = []
    if chosen.rotation:
        rotate_residual(model, seed, keep_layer_norm=KEEP_LAYER_NORM)
        rotate_heads(model, seed)
        applied += ["rotate_residual", "rotate_heads"]
    if chosen.heads:
        balance_heads(model, images)
        applied.append("balance_heads")
    if chosen.values:
        centre_values(model, images)
        applied.append("centre_values")
    if chosen.norm:
        fold_norm_ranges(model, images, NORM_STRENGTH)
        applied.append("fold_norm_ranges")
    if applied:
        _check_unchanged(before, tensors_of(logits_of(model, sample)), applied)
    return applied


def _check_unchanged(before: Mapping[str, Tensor], after: Mapping[str, Tensor], applied: list[str]) -> None:
    finite = {name: one for name, one in before.items() if one.isfinite().all()}
    errors = [(after[name] - one).abs().max() / one.abs().max().clamp(min=1e-12) for name, one in finite.items()]
    if not all(error <= _TOLERANCE for error in errors):
        raise UserError(
            f"the rewrites {', '.join(applied)} change this model's outputs by {float(max(errors)):.1e}, expected at "
            f"most {_TOLERANCE:.0e}: it shares weights between layers, or computes something else than its layers say"
        )
