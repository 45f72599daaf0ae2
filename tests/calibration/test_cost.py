"""How often blocks run: linear in depth but for Fisher measurements, which run the blocks after the current one.

Small blocks are recorded for those once for all blocks before them, so that nothing grows with the square of the depth.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from timm.models.swin_transformer import SwinTransformerBlock
from timm.models.vision_transformer import Block
from torch import nn
from torch.nn.modules.module import register_module_forward_pre_hook

from fimaq_deploy.calibration.learning import chain_gradients
from fimaq_deploy.calibration.quantization import quantize

Make = Callable[..., Any]

IMAGES, BATCH, ITERATIONS, MEASUREMENTS = 16, 8, 6, 2
# A look each at the logits before rewrites, at tokens and at grids; the copy and the original are compared once, and
# the copy once more shows what it returns; the original runs once more for its logits; at its turn
# a block computes its target, is searched, learned, judged before and after, and passes its output on: each time its
# minibatches go together, as small as they are. Learning runs a small block once, while it is recorded: from then on
# its operators run again without the module.
PASSED = 1
FIXED = 6 + PASSED + PASSED + PASSED + 2 * PASSED + 1 + PASSED


@pytest.fixture
def forwards() -> Iterator[Counter[str]]:
    """Counts the forward calls of transformer blocks by the type of the block."""
    counter: Counter[str] = Counter()

    def count(module: nn.Module, _inputs: Any) -> None:
        if isinstance(module, Block | SwinTransformerBlock):
            counter[type(module).__name__] += 1

    handle = register_module_forward_pre_hook(count)
    yield counter
    handle.remove()


def settings(loss: str, sample: int) -> dict[str, Any]:
    sizes = {"images": IMAGES, "batch_size": BATCH, "iterations": ITERATIONS, "fisher_images": sample}
    return {**sizes, "loss": loss, "rank": MEASUREMENTS, "rounding": "straight_through"}


@pytest.fixture
def large(monkeypatch: pytest.MonkeyPatch) -> None:
    """No chain is small enough to be recorded for measurements."""
    monkeypatch.setattr(chain_gradients, "WORTH_RECORDING", 0)


@pytest.mark.parametrize(("loss", "measurements"), [("mse", 0), ("least_squares", 1), ("dplr", MEASUREMENTS)])
def test_a_vit_runs_its_blocks_as_often_as_the_algorithm_needs(
    tiny_vit: Make, random_images: Make, quick_recipe: Make, forwards: Counter[str], loss: str, measurements: int
) -> None:
    found = {}
    for depth in (2, 8):
        forwards.clear()
        quantize(tiny_vit(depth=depth), random_images(IMAGES), quick_recipe(reconstruction=settings(loss, BATCH)))
        found[depth] = forwards["Block"]
    # A block's first measurement of one batch runs the block itself, the chain's first one all blocks; from then on
    # their operators run.
    called = min(measurements, 1)
    assert found == {depth: depth * (FIXED + 2 * called) for depth in found}


def test_a_large_vit_runs_its_blocks_for_the_measurements_of_every_block_before_them(
    tiny_vit: Make, random_images: Make, quick_recipe: Make, forwards: Counter[str], large: None
) -> None:
    depth = 4
    quantize(tiny_vit(depth=depth), random_images(IMAGES), quick_recipe(reconstruction=settings("dplr", BATCH)))
    assert forwards["Block"] == depth * (FIXED + 1) + MEASUREMENTS * depth * (depth + 1) // 2


def test_the_measurements_of_a_sample_cost_what_the_sample_costs(
    tiny_swin: Make, random_images: Make, quick_recipe: Make, forwards: Counter[str], large: None
) -> None:
    counts = []
    for sample in (BATCH, IMAGES):
        forwards.clear()
        recipe = quick_recipe(reconstruction=settings("least_squares", sample))
        quantize(tiny_swin(depths=(2, 2)), random_images(IMAGES, 32), recipe)
        counts.append(forwards["SwinTransformerBlock"])
    # Before the blocks come 1, 2, 4 and 5 stages (patch embedding and merging among them), each of which is measured
    # once. The outputs that are measured come of one pass, of one minibatch or two.
    assert counts[1] - counts[0] == 1 + 2 + 4 + 5
