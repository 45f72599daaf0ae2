"""Every block is learned behind what the ones before it became, and one that is finished is not learned again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from fimaq_deploy.calibration.checkpoints import Checkpoints
from fimaq_deploy.calibration.learning.activations import ActivationStore
from fimaq_deploy.calibration.learning.batches import relative_error
from fimaq_deploy.calibration.learning.gradients import suffix_of
from fimaq_deploy.calibration.network.quantized_copy import stages_of
from fimaq_deploy.calibration.prepare import Prepared, prepare
from fimaq_deploy.calibration.quantizers.layers import quantized_layers
from fimaq_deploy.calibration.state import frozen_state
from fimaq_deploy.calibration.walk import Progress, Walk
from fimaq_deploy.recipe import Recipe
from fimaq_deploy.target import find_target

Make = Callable[..., Any]
STAGES = ["patch_embed", "blocks.0", "blocks.1", "head"]


@pytest.fixture(autouse=True)
def own_random_stream() -> Iterator[None]:
    """A walk seeds torch, as `quantize` lets it do in a stream of its own."""
    with torch.random.fork_rng(), torch.no_grad():
        yield


@pytest.fixture
def images(random_images: Make) -> Tensor:
    return random_images(16)


@pytest.fixture
def walk(tiny_vit: Make, images: Tensor) -> Callable[..., tuple[Prepared, Walk]]:
    """A walk along a tiny ViT that has not started."""

    def make(recipe: Recipe, progress: Progress | None = None) -> tuple[Prepared, Walk]:
        made = prepare(tiny_vit(), images, recipe, find_target("onnxruntime-cpu"), torch.device("cpu"), 0)
        logits = made.teacher(images)
        return made, Walk(made.copy, recipe, 3, images, logits, ActivationStore(), made.outputs, 8, progress)

    return make


def test_both_boundaries_move_past_every_stage(walk: Make, images: Tensor, quick_recipe: Make) -> None:
    """Nothing learned: the error of a block is that of the chain up to it, measured here on whole prefixes."""
    made, way = walk(quick_recipe(reconstruction={"iterations": 0, "batch_size": 4}))
    records = list(way.blocks(Checkpoints(None, lambda: "")))
    assert [record.name for record in records] == STAGES
    frozen, full = images, images
    for record, stage, original in zip(records, way.stages, stages_of(made.teacher), strict=True):
        frozen, full = stage.module(frozen), original.module(full)
        assert 0 < record.loss_after == pytest.approx(float(relative_error(iter([frozen]), full)), rel=1e-3)


def test_what_is_walked_past_is_frozen_and_the_rest_is_not(walk: Make, quick_recipe: Make) -> None:
    made, way = walk(quick_recipe(reconstruction={"iterations": 2}))
    for position, _ in enumerate(way.blocks(Checkpoints(None, lambda: ""))):
        done = [layer.frozen for stage in way.stages[: position + 1] for _, layer in quantized_layers(stage.module)]
        rest = [layer.frozen for stage in way.stages[position + 1 :] for _, layer in quantized_layers(stage.module)]
        assert all(done) and not any(rest)
    assert torch.equal(suffix_of(way.stages)(way.images), made.copy(way.images))


def test_a_finished_block_is_not_learned_again(walk: Make, quick_recipe: Make, tmp_path: Path) -> None:
    """Blocks that come after a finished one become what they became without the interruption."""
    recipe = quick_recipe(reconstruction={"iterations": 2})
    whole, way = walk(recipe)
    expected = list(way.blocks(Checkpoints(None, lambda: "")))
    _, first = walk(recipe)
    started = first.blocks(Checkpoints(tmp_path, lambda: "same"))
    assert [next(started).name, next(started).name] == STAGES[:2]
    kept = {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    again, second = walk(recipe)
    records = list(second.blocks(Checkpoints(tmp_path, lambda: "same")))
    assert [(one.name, one.loss_after) for one in records] == [(one.name, one.loss_after) for one in expected]
    assert len(kept) == 2 and {name: (tmp_path / name).stat().st_mtime_ns for name in kept} == kept
    mine, theirs = frozen_state(again.copy), frozen_state(whole.copy)
    assert mine.keys() == theirs.keys() and all(torch.equal(mine[name], theirs[name]) for name in mine)


def test_tuning_is_one_more_step_that_is_recorded_like_a_block(walk: Make, images: Tensor, quick_recipe: Make) -> None:
    events: list[tuple[int, int, str]] = []
    recipe = quick_recipe(reconstruction={"iterations": 1}, tuning={"iterations": 2, "batch_size": 8})
    made, way = walk(recipe, lambda *event: events.append(event))
    list(way.blocks(Checkpoints(None, lambda: "")))
    before = float(relative_error(iter([made.copy(images)]), way.logits))
    record = way.tuned(made.teacher, made.tuned_at_once)
    assert events == [(done, 5, name) for done, name in enumerate([*STAGES, "joint tuning"])]
    assert (record.name, record.iterations) == ("joint tuning", 2)
    assert record.loss_before == pytest.approx(before, rel=1e-4)
    assert record.loss_after == pytest.approx(float(relative_error(iter([made.copy(images)]), way.logits)), rel=1e-4)
