"""Passes between torch's exporter and the file, in their order, as data: each is a file of its own.

`CLEANING` is what every trace gets once. `passes_for` is what the file of a target gets after that; a graph in which
there is nothing to do for a pass, such as one that is not quantized, goes through it unchanged.
"""

from __future__ import annotations

from collections.abc import Callable

import onnx_ir as ir

from fimaq_deploy.export.passes.first_row import drop_unread_rows
from fimaq_deploy.export.passes.float16_attention import attention_in_float16
from fimaq_deploy.export.passes.folding import fold_constants
from fimaq_deploy.export.passes.guards import guard_split_products
from fimaq_deploy.export.passes.idle_clips import drop_idle_clips
from fimaq_deploy.export.passes.idle_pads import drop_idle_pads
from fimaq_deploy.export.passes.int4 import pack_behind_cast, pack_channels, pack_int4
from fimaq_deploy.export.passes.integer_clips import clip_integers
from fimaq_deploy.export.passes.names import name_nodes, name_tensors
from fimaq_deploy.export.passes.nvfp4 import dynamic_in_one_operator, dynamic_spelled_out, pack_float4
from fimaq_deploy.export.passes.patches import patches_as_product
from fimaq_deploy.export.passes.precision import to_bfloat16, to_float16
from fimaq_deploy.export.passes.rewrite import Pass
from fimaq_deploy.export.passes.rows import rows_as_batch
from fimaq_deploy.export.passes.tidy import forget_notes, remove_unused
from fimaq_deploy.export.passes.transposes import transpose_before_quantizing
from fimaq_deploy.target import Target, WeightStorage

__all__ = ["CLEANING", "WRITING", "Pass", "obstacles", "passes_for", "run_passes"]

CLEANING: tuple[Pass, ...] = (name_tensors, pack_int4, fold_constants, drop_idle_clips, drop_idle_pads)

# Each with the targets that it is for. Nodes are named when no rewrite needs what the exporter noted any more. Integers
# are clipped by float32 scales, which no type has rounded yet, and attention is bounded by them.
WRITING: tuple[tuple[Pass, Callable[[Target], bool]], ...] = (
    (transpose_before_quantizing, lambda target: target.high_precision == "float32"),
    (rows_as_batch, lambda target: target.high_precision == "float32"),
    (patches_as_product, lambda target: target.patches == "product"),
    (remove_unused, lambda _: True),
    (name_nodes, lambda _: True),
    (forget_notes, lambda _: True),
    (dynamic_in_one_operator, lambda target: target.kernel("nvfp4", "layer") is not None),
    (dynamic_spelled_out, lambda target: target.kernel("nvfp4", "layer") is None),
    (clip_integers, lambda target: target.clip == "integers"),
    (attention_in_float16, lambda target: target.high_precision == "bfloat16"),
    (to_float16, lambda target: target.high_precision == "float16"),
    (to_bfloat16, lambda target: target.high_precision == "bfloat16"),
    (guard_split_products, lambda target: target.splits_products),
    (drop_unread_rows, lambda _: True),
    (pack_float4, lambda target: target.kernel("nvfp4", "layer") is not None),
)


def passes_for(target: Target, storage: WeightStorage = "int8") -> tuple[Pass, ...]:
    """What a clean float32 graph goes through to become a target's file.

    storage: of weights of at most four bits. They are packed last, so that no other pass has to know.
    """
    return (*(each for each, is_for in WRITING if is_for(target)), *_packing(target, storage))


def _packing(target: Target, storage: WeightStorage) -> tuple[Pass, ...]:
    if storage != "int8" and target.int4_channels == "folded":
        return (pack_behind_cast,)
    return (pack_channels,) if storage == "int4" else ()


def run_passes(model: ir.Model, passes: tuple[Pass, ...]) -> tuple[str, ...]:
    """Run passes in place, and return the names of those that changed something."""
    return tuple([each.name for each in passes if each(model)])


def obstacles(model: ir.Model, target: Target) -> dict[str, dict[str, str]]:
    """Why the passes of a target leave nodes of a graph as they are: {pass: {node: reason}}."""
    return {each.name: found for each in passes_for(target) if (found := each.obstacles(model))}
