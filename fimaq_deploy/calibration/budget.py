"""How much memory learning takes, told before it starts, and how many images are computed at once to stay within it.

Attention spelled out keeps heads · tokens² numbers an image, several times while it learns. Everything else grows with
the tokens alone. The bounds are constants, so that the same call computes the same numbers anywhere; only where the
estimate passes what is free do fewer images go together, which moves the last digits.

The factors of the estimate were fitted to the peaks of vision transformers on a CPU (`docs/log`, "what a build needs").
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fimaq_deploy.calibration.device import is_host, of
from fimaq_deploy.calibration.learning.measurements import HOST_VALUES
from fimaq_deploy.calibration.learning.tune import images_tuned_at_once
from fimaq_deploy.calibration.memory import free_host_bytes
from fimaq_deploy.calibration.network.attentions import Seen, attention_inputs, attentions_of
from fimaq_deploy.calibration.network.chain import chain_of
from fimaq_deploy.calibration.network.fidelity import merge_adapters
from fimaq_deploy.calibration.network.quantized_copy import explicit_copy, stages_of
from fimaq_deploy.errors import UserError
from fimaq_deploy.recipe import Recipe

_log = logging.getLogger(__name__)

HOST_BYTES = 2**31
DEVICE_BYTES = 2**34
# Scores, bias, softmax, its integers and what their gradients keep, in float32.
_LIVE_BYTES = 8 * 4
# What was fitted, in float32 numbers: of a pixel in the patch embedding, of a score and of a channel of a token in a
# block that learns, of both in the graph of one that does not, of a weight; and bytes that come whatever is done.
_IMAGE, _SCORE, _CHANNEL, _SCORE_KEPT, _CHANNEL_KEPT, _COPIES, _ALWAYS = 8, 4, 48, 3, 24, 6, 100 * 2**20
# An estimate that is so much too high is still right about a job that cannot fit.
_DOUBT = 1.5
# A block's input, queries, keys, values, both sides of its perceptron and what is on its way between them, in float32.
_PASSED_BYTES = 16 * 4
# Enough that kernels take longer than starting them.
_PASSED_IMAGES = 256
# The same on the host, in numbers, which its caches still hold; and what minibatches must be multiples of for products
# to add up in the same order however many go together: they are computed so many rows at a time, the rest otherwise.
_HOST_PASSED, _ROWS_AT_ONCE = 2**16, 4


def images_in_a_pass(images: Tensor, device: torch.device, batch_size: int, at_once: int) -> int:
    """How many images a pass without gradients takes together.

    On the host a minibatch, or several of a small block where every number stays what it is. A device is kept busy by
    far more than that, as long as what a block makes of them fits what is free. images: what goes in; at_once: what
    attention allows.
    """
    if is_host(device):
        minibatch = min(batch_size, at_once)
        if minibatch % _ROWS_AT_ONCE or len(images) % minibatch:
            return minibatch
        return minibatch * max(1, min(at_once, _HOST_PASSED // images[0].numel()) // minibatch)
    bound = min(DEVICE_BYTES, of(device).spare_bytes()) // (_PASSED_BYTES * images[0].numel())
    return min(at_once, max(batch_size, min(bound, _PASSED_IMAGES)))


def images_at_once(model: nn.Module, tokens: Mapping[str, int]) -> int:
    """As many images as fit the bound where attention is largest, at least one.

    tokens: the sequence length of each attention, by name. Windows are counted as if an image had one, which makes the
    attention of windows small, as it is.
    """
    bound = HOST_BYTES if is_host(next(model.parameters()).device) else DEVICE_BYTES
    numbers = (heads.count * tokens[name] ** 2 for name, heads in attentions_of(model).items())
    return max(1, bound // (_LIVE_BYTES * max(numbers, default=1)))


@dataclass(frozen=True)
class Work:
    """What one image is to a model, in numbers.

    pixels: of the image, all channels. tokens, width: where tokens · width is largest. values: that product, with all
    windows. scores: heads · tokens², with all windows, where that is largest. stages: of the chain. blocks: of
    them with attention. parameters: all.
    at_once: images that are computed together at most. tuned: whose graph through all stages is in memory together.
    """

    pixels: int
    tokens: int
    width: int
    values: int
    scores: int
    stages: int
    blocks: int
    parameters: int
    at_once: int
    tuned: int

    @classmethod
    def of(cls, explicit: nn.Module, seen: Mapping[str, Seen], shape: torch.Size) -> Work:
        """Of a model whose attention is spelled out. seen: what its attentions see; shape: of an image, (C, H, W)."""
        heads = {name: one.count for name, one in attentions_of(explicit).items()}
        large = max(seen.values(), key=lambda one: one.windows * one.tokens * one.width, default=Seen(1, 1, 1))
        values = large.windows * large.tokens * large.width
        scores = max((one.windows * heads[name] * one.tokens**2 for name, one in seen.items()), default=1)
        tuned = images_tuned_at_once(shape[-2] * shape[-1])
        if not is_host(next(explicit.parameters()).device):  # which is kept busy by as many as there is room for
            tuned = max(tuned, DEVICE_BYTES // (4 * _kept(scores, values) * max(len(seen), 1)))
        return cls(
            pixels=shape.numel(),
            tokens=large.windows * large.tokens,
            width=large.width,
            values=values,
            scores=scores,
            stages=len(stages_of(explicit)),
            blocks=len(seen),
            parameters=sum(parameter.numel() for parameter in explicit.parameters()),
            at_once=images_at_once(explicit, {name: one.tokens for name, one in seen.items()}),
            tuned=tuned,
        )

    def learning_bytes(self, recipe: Recipe, count: int, stored_bytes: int, at_once: int | None = None) -> int:
        """The peak of learning beyond what is in memory before it.

        count: calibration images. stored_bytes: what boundary activations may take. at_once: fewer images than allowed.
        """
        together = min(at_once or self.at_once, self.at_once, count, recipe.reconstruction.batch_size)
        stored = min(stored_bytes, 4 * count * (self.pixels + 3 * self.values))
        step = max(_IMAGE * self.pixels, _SCORE * self.scores + _CHANNEL * self.values) * together
        graphs = max(self._pulled(recipe, together), self._tuned(recipe, count, together)) * self.blocks
        kept = _kept(self.scores, self.values) * graphs
        return _ALWAYS + stored + 4 * (_COPIES * self.parameters + max(step, kept))

    def _pulled(self, recipe: Recipe, together: int) -> int:
        """Images whose graph through all stages is in memory for a measurement of gradients."""
        if recipe.reconstruction.loss == "mse" or not recipe.reconstruction.iterations_a_block:
            return 0
        return min(together, max(1, HOST_VALUES // self.values), max(1, self.at_once // self.stages))

    def _tuned(self, recipe: Recipe, count: int, together: int) -> int:
        """The same for joint tuning."""
        if not recipe.tuning.joint_iterations:
            return 0
        return min(count, recipe.tuning.batch_size, self.tuned, max(together, 1))


def _kept(scores: int, values: int) -> int:
    """Numbers that one image leaves in the graph of a block that is run through."""
    return _SCORE_KEPT * scores + _CHANNEL_KEPT * values


def work_of(model: nn.Module, images: Tensor) -> Work:
    """What one image is to a model that is not quantized, found without computing it where that is possible.

    images: (N, C, H, W).

    Raises:
        UserError: the model is not understood, or takes no images of this size.
    """
    original = copy.deepcopy(model).float().eval()
    merge_adapters(original)
    explicit = explicit_copy(chain_of(original, images))
    return Work.of(explicit, attention_inputs(explicit, images[:1]), images.shape[1:])


def free_bytes(device: torch.device) -> int | None:
    """How much of the memory that learning computes in is free; None where nothing tells."""
    return free_host_bytes() if is_host(device) else 2 * of(device).spare_bytes() or None


def fitting(work: Work, recipe: Recipe, count: int, stored_bytes: int, device: torch.device) -> int:
    """Images at once that fit what is free on a device: the bound's, or fewer where those would not.

    Raises:
        UserError: not even one does, by far.
    """
    free, at_once = free_bytes(device), min(work.at_once, recipe.reconstruction.batch_size)
    if free is None or work.learning_bytes(recipe, count, stored_bytes) <= free:
        return work.at_once
    while at_once > 1 and work.learning_bytes(recipe, count, stored_bytes, at_once) > free:
        at_once = (at_once + 1) // 2
    least = work.learning_bytes(recipe, count, 0, 1)
    if least > _DOUBT * free:
        raise UserError(
            f"not enough memory: to learn with one image at a time ({work.tokens} tokens of width {work.width}) needs "
            f"about {gib(least)}, and {gib(free)} are free: take smaller images or a machine with more memory"
        )
    _log.warning("memory: %s are free: %s at a time, which moves the last digits", gib(free), counted(at_once, "image"))
    return at_once


def counted(number: int, thing: str) -> str:
    return f"{number:,} {thing}{'' if number == 1 else 's'}"


def gib(number: float) -> str:
    """Bytes to read at a glance."""
    return f"{number / 2**30:.1f} GiB"
