"""What a build will need, said in one line of the log before anything takes long.

Of the process that builds. Not covered: compilers, and the processes that measure the memory of a file alone.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from torch import nn

from fimaq_deploy.calibration import parallel
from fimaq_deploy.calibration.budget import Work, counted, gib, work_of
from fimaq_deploy.calibration.device import is_host
from fimaq_deploy.calibration.learning.activations import DEFAULT_BUDGET_BYTES
from fimaq_deploy.calibration.memory import free_host_bytes, resident_bytes
from fimaq_deploy.data.batches import images_at_once
from fimaq_deploy.data.source import ImageSource
from fimaq_deploy.engines.runtimes import REFERENCE, Runtime
from fimaq_deploy.pipeline.candidates import BATCH
from fimaq_deploy.pipeline.speed import batch_sizes
from fimaq_deploy.recipe import Recipe

_log = logging.getLogger(__name__)

# Sessions that are always loaded together: FP32, quantized, and quantized as written.
_SESSIONS = 3
# Numbers that a session of a CPU keeps: for each score, and for each channel of a token. Fitted, see `docs/log`.
_SCORE, _CHANNEL = 5, 12


def announce(
    model: nn.Module, images: ImageSource, recipe: Recipe, runtimes: Sequence[Runtime], *, inside: bool = False
) -> None:
    """Log about how much memory the build will have at its peak, what that follows from, and what is free.

    inside: the model is an encoder inside of another one, which some recipes tune for longer.

    Raises:
        UserError: the model is not understood, or takes no images of this size.
    """
    one, device = images.take(1), next(model.parameters()).device
    work, count = work_of(model, one), images.count or recipe.reconstruction.images
    count = min(count, recipe.reconstruction.images) // parallel.current().size
    recipe = recipe.resolved(on_host=is_host(device), inside=inside)
    learning = work.learning_bytes(recipe, max(1, count), DEFAULT_BUDGET_BYTES)
    running, resident, free = _running_bytes(work, one.shape, runtimes), resident_bytes(), free_host_bytes()
    needed = max(running, learning if is_host(device) else 0)
    together = min(work.at_once, count, recipe.reconstruction.batch_size)
    facts = f"{work.tokens:,} tokens of width {work.width:,}, {counted(count, 'image')}, {together:,} at once"
    there = "" if is_host(device) else f" and {gib(learning)} on {device}"
    aside = ", compilers not counted" if any(runtime.compiler for runtime in runtimes) else ""
    left = "" if free is None else f"; {gib(free)} are free"
    short = "" if free is None or needed <= free else ", so it may be killed: take smaller images, or fewer"
    level = logging.WARNING if short else logging.INFO
    _log.log(
        level, "memory    about %s at its peak%s%s (%s)%s%s", gib(resident + needed), there, aside, facts, left, short
    )


def _running_bytes(work: Work, shape: Sequence[int], runtimes: Sequence[Runtime]) -> int:
    """What the files of a build keep that are loaded to be run beside each other."""
    sessions = _SESSIONS + sum(runtime.name != REFERENCE and runtime.compiler is None for runtime in runtimes)
    together = max(images_at_once(shape, BATCH), *batch_sizes(shape[-2:]))
    return 4 * sessions * (together * (_SCORE * work.scores + _CHANNEL * work.values) + 2 * work.parameters)
