from __future__ import annotations

import gc
import itertools
import json
import weakref
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from fimaq_deploy.calibration.learning.activations import ActivationStore
from fimaq_deploy.calibration.learning.batches import relative_error, run_batches
from fimaq_deploy.calibration.learning.gradients import suffix_of
from fimaq_deploy.calibration.learning.objectives import OBJECTIVES, Objective
from fimaq_deploy.calibration.learning.reconstruct import BlockLearner, BlockRecord, reconstruct_block
from fimaq_deploy.calibration.learning.scale_search import search_stage
from fimaq_deploy.calibration.network.attentions import attention_tokens
from fimaq_deploy.calibration.network.plan import make_plan
from fimaq_deploy.calibration.network.quantized_copy import quantized_copy, stages_of
from fimaq_deploy.calibration.quantizers.layers import (
    activation_quantizers,
    enable_quantization,
    high_precision_parameters,
    quantized_layers,
)
from fimaq_deploy.models.families.roles import Stage
from fimaq_deploy.recipe import Recipe
from fimaq_deploy.target import find_target

Make = Callable[..., Any]


class Prepared:
    """The second stage of a tiny ViT, searched, with its boundary activations."""

    def __init__(self, model: Any, images: Tensor, recipe: Recipe) -> None:
        plan = make_plan(model, recipe, find_target("onnxruntime-cpu"), attention_tokens(model, images[:1]))
        twin = quantized_copy(model, plan)
        self.settings = recipe.reconstruction
        self.stages: list[Stage] = stages_of(twin)
        self.module = self.stages[1].module
        with torch.no_grad():
            self.fp_in = self.stages[0].module(images)
            self.q_in = self.fp_in + 0.05 * torch.randn(self.fp_in.shape)
            self.z = self.module(self.fp_in)
            self.logits = suffix_of(self.stages[2:])(self.z)
            search_stage(self.module, [self.q_in], 16)

    def learn(self) -> Any:
        boundary = self.fp_in, self.q_in
        with torch.no_grad(), ActivationStore() as store:
            return reconstruct_block(self.stages, 1, boundary, self.z, self.logits, self.settings, store)


@pytest.fixture
def prepared(tiny_vit: Make, random_images: Make, quick_recipe: Make) -> Callable[..., Prepared]:
    torch.manual_seed(0)
    return lambda **settings: Prepared(tiny_vit(), random_images(16), quick_recipe(reconstruction=settings))


def test_the_record_says_what_happened(prepared: Make) -> None:
    block = prepared(iterations=60, weight_lr=0.01, qdrop=0.0, rounding_weight=0.001)
    record = block.learn()
    assert (record.name, record.iterations) == ("blocks.0", 60)
    assert record.loss_after < record.loss_before
    assert record.seconds > 0
    after = relative_error(run_batches(block.module, block.q_in, 8), block.z)
    assert after == pytest.approx(record.loss_after, rel=1e-4)
    assert record.as_dict()["name"] == "blocks.0"


@pytest.mark.parametrize(("iterations", "points"), [(60, 26), (7, 7), (25, 25), (0, 0)])
def test_the_curve_is_sparse_from_the_first_iteration_to_the_last(prepared: Make, iterations: int, points: int) -> None:
    record = prepared(iterations=iterations, qdrop=0.0, rounding="straight_through").learn()
    places = [iteration for iteration, _ in record.curve]
    assert len(places) == points
    assert places == sorted(set(places))
    if iterations:
        assert (places[0], places[-1]) == (0, iterations - 1)
        assert record.curve[0][1] == pytest.approx(record.loss_before, rel=0.3), "one minibatch of the same set"
    assert BlockRecord.from_dict(json.loads(json.dumps(record.as_dict()))) == record


def test_a_record_of_an_older_state_has_no_curve() -> None:
    old = {"name": "head", "loss_before": 2.0, "loss_after": 1.0, "iterations": 3, "seconds": 0.5}
    assert BlockRecord.from_dict(old).curve == ()


def test_without_iterations_nothing_is_learned(prepared: Make) -> None:
    block = prepared(iterations=0)
    scales = [quantizer.scale.clone() for _, quantizer in activation_quantizers(block.module)]
    record = block.learn()
    assert record.loss_before == record.loss_after
    assert all(
        torch.equal(old, quantizer.scale)
        for old, (_, quantizer) in zip(scales, activation_quantizers(block.module), strict=True)
    )


@pytest.mark.parametrize("rounding", ["adaround", "straight_through", "sign_gradient", "nearest"])
def test_after_learning_nothing_is_soft_and_nothing_is_dropped(prepared: Make, rounding: str) -> None:
    block = prepared(rounding=rounding)
    block.learn()
    for _, layer in quantized_layers(block.module):
        quantizer = layer.weight_quantizer
        assert quantizer.soft is None and quantizer.log_scale is None
        integers = quantizer.integers()
        assert torch.equal(integers, integers.round())
        assert integers.abs().max() <= 8
    for _, quantizer in activation_quantizers(block.module):
        assert quantizer.drop == 0 and quantizer.log_scale is None
        assert quantizer.offset.item() == round(quantizer.offset.item())


def test_scales_are_learned_with_the_roundings(prepared: Make) -> None:
    block = prepared(iterations=10, scale_lr=1e-2)
    before = {name: quantizer.scale.item() for name, quantizer in activation_quantizers(block.module)}
    block.learn()
    after = {name: quantizer.scale.item() for name, quantizer in activation_quantizers(block.module)}
    assert all(before[name] != after[name] for name in before)


@pytest.mark.parametrize("rate", [0.0, 1e-2])
def test_weight_scales_biases_and_norms_learn_where_they_have_a_rate(prepared: Make, rate: float) -> None:
    block = prepared(iterations=10, weight_scale_lr=rate, other_lr=rate)

    def numbers_of() -> list[Tensor]:
        scales = [layer.weight_quantizer.scale for _, layer in quantized_layers(block.module)]
        return [tensor.detach().clone() for tensor in (*scales, *high_precision_parameters(block.module))]

    before = numbers_of()
    block.learn()
    same = [torch.equal(old, new) for old, new in zip(before, numbers_of(), strict=True)]
    assert all(same) if rate == 0 else not any(same)


def test_nothing_needs_a_gradient_after_learning(prepared: Make) -> None:
    block = prepared(weight_scale_lr=1e-3, other_lr=1e-3)
    block.learn()
    assert not any(parameter.requires_grad for parameter in block.module.parameters())


class Counting(Objective):
    """Plain error that writes down when it was asked to measure."""

    def __init__(self, context: Any, refreshes: int) -> None:
        super().__init__(context)
        self.refreshes, self.costs, self.refreshed_at = refreshes, 0, []

    def refresh(self, outputs: Callable[[int], Iterator[Tensor]]) -> None:
        self.refreshed_at.append(self.costs)

    def cost(self, output: Tensor, index: Tensor) -> Tensor:
        self.costs += 1
        return self.deviation(output, index).square().sum()


def schedule_of(block: Prepared, refreshes: int) -> list[int]:
    objective = Counting(SimpleNamespace(z=block.z), refreshes)
    enable_quantization(block.module, True)
    with torch.no_grad():
        # It counts in Python, which a recorded step does not run.
        BlockLearner(block.module, objective, (block.fp_in, block.q_in), block.settings, recordable=False).learn()
    assert objective.costs == block.settings.iterations
    return objective.refreshed_at


@pytest.mark.parametrize(("iterations", "rank"), [(10, 5), (12, 5), (9, 4), (3, 5), (7, 1), (15, 15), (16, 15)])
def test_measurements_are_spread_evenly_over_the_iterations(prepared: Make, iterations: int, rank: int) -> None:
    refreshed = schedule_of(prepared(iterations=iterations), rank)
    assert refreshed[0] == 0
    assert len(refreshed) == min(rank, iterations)
    gaps = [b - a for a, b in itertools.pairwise([*refreshed, iterations])]
    assert max(gaps) - min(gaps) <= 1


def test_no_measurement_is_taken_where_none_is_needed(prepared: Make) -> None:
    assert schedule_of(prepared(iterations=4), 0) == []


def test_inputs_mix_whole_rows_of_both_boundaries(prepared: Make) -> None:
    block = prepared(qdrop=0.5)
    learner = BlockLearner(block.module, Objective(None), (block.fp_in, block.q_in), block.settings)
    index = torch.arange(16)
    mixed = learner._mixed(index)
    exact, rough = (mixed == block.fp_in).all(-1), (mixed == block.q_in).all(-1)
    assert (exact | rough).all() and exact.any() and rough.any()
    without = prepared(qdrop=0.0)
    learner = BlockLearner(without.module, Objective(None), (without.fp_in, without.q_in), without.settings)
    assert torch.equal(learner._mixed(index), without.q_in)


def test_current_outputs_are_without_drops(prepared: Make) -> None:
    block = prepared(qdrop=1.0, rounding="straight_through")
    enable_quantization(block.module, True)
    with torch.no_grad():
        expected = block.module(block.q_in)
        learner = BlockLearner(block.module, Objective(None), (block.fp_in, block.q_in), block.settings)
        torch.testing.assert_close(torch.cat(list(learner.outputs(16))), expected, rtol=1e-4, atol=1e-4)
    assert all(quantizer.drop == 1.0 for _, quantizer in activation_quantizers(block.module))


def test_a_block_that_stops_improving_uses_fewer_iterations_and_says_so(prepared: Make) -> None:
    # Nothing can be learned from rates this small, so the loss is flat but for the noise of the minibatches.
    flat = {"rounding": "straight_through", "weight_lr": 1e-9, "scale_lr": 1e-9, "qdrop": 0.0, "iterations": 400}
    record = prepared(**flat, patience=2).learn()
    assert record.stopped == "converged"
    assert record.iterations < 400 and record.curve[-1][0] == record.iterations - 1
    patient = prepared(**flat, patience=0).learn()
    assert (patient.stopped, patient.iterations) == ("ceiling", 400)


def test_a_block_without_anything_to_learn_takes_no_iterations(prepared: Make) -> None:
    block = prepared(rounding="nearest")
    for _, quantizer in activation_quantizers(block.module):
        quantizer.grid = None
    record = block.learn()
    assert (record.iterations, record.stopped, record.curve) == (0, "nothing to learn", ())


@pytest.mark.parametrize("loss", OBJECTIVES)
def test_a_blocks_activations_do_not_outlive_it(prepared: Make, loss: str) -> None:
    """In a cycle of references they would wait for the garbage collector, which sees objects and not gigabytes."""
    block = prepared(iterations=4, loss=loss)
    activations = [weakref.ref(tensor) for tensor in (block.fp_in, block.q_in, block.z, block.logits)]
    gc.collect()
    gc.disable()
    try:
        block.learn()
        del block
        assert [reference() for reference in activations] == [None] * 4
    finally:
        gc.enable()


@pytest.mark.parametrize("precision", ["auto", "float32", "tf32", "bfloat16"])
def test_every_precision_learns_and_leaves_the_switches_alone(prepared: Make, precision: str) -> None:
    before = torch.get_float32_matmul_precision()
    settings = {"iterations": 60, "weight_lr": 0.01, "qdrop": 0.0, "rounding": "straight_through"}
    record = prepared(**settings, precision=precision).learn()
    assert record.loss_after < record.loss_before
    assert torch.get_float32_matmul_precision() == before
    assert not torch.is_autocast_enabled("cpu")


def test_a_block_can_be_traced_whole(prepared: Make) -> None:
    """What a CUDA graph or a compiler needs: no branch on a value and no number fetched."""
    block = prepared(rounding="straight_through", qdrop=0.0)
    enable_quantization(block.module, True)
    learner = BlockLearner(block.module, Objective(None), (block.fp_in, block.q_in), block.settings)
    parameters = [p for group in learner.optimisers[0].param_groups for p in group["params"]]
    found = []
    for run in (block.module, torch.compile(block.module, backend="aot_eager", fullgraph=True, dynamic=False)):
        with torch.enable_grad():
            error = (run(block.q_in[:8]) - block.z[:8]).square().sum()
            found.append((error, *torch.autograd.grad(error, parameters)))
    for eager, traced in zip(*found, strict=True):
        torch.testing.assert_close(traced, eager, rtol=1e-3, atol=1e-4)
