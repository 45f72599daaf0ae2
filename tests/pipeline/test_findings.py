"""Each record of a report from what was measured: every field differs from the others, so none is mixed up."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from fixtures.objects import found_objects, true_objects

from fimaq_deploy.calibration.findings.sensitivity import Sensitivity
from fimaq_deploy.calibration.findings.usage import GridUse
from fimaq_deploy.calibration.learning.reconstruct import BlockRecord
from fimaq_deploy.data.intake import as_source
from fimaq_deploy.data.source import ImageSource
from fimaq_deploy.engines.runtimes import find_runtime
from fimaq_deploy.measure.accuracy import Evaluation, evaluate
from fimaq_deploy.measure.latency import Latency
from fimaq_deploy.models.describe import ModelInfo
from fimaq_deploy.pipeline import findings
from fimaq_deploy.pipeline.compiled import Engine
from fimaq_deploy.pipeline.rows import Candidate, Done
from fimaq_deploy.pipeline.speed import Speed
from fimaq_deploy.pipeline.steps import Step
from fimaq_deploy.report import schema
from fimaq_deploy.report.predictions import Predictions
from fimaq_deploy.verify.block_parity import Comparison
from fimaq_deploy.verify.block_plan import BlockPlan
from fimaq_deploy.verify.flips import Flips
from fimaq_deploy.verify.layer_audit import EngineAudit
from fimaq_deploy.verify.stages import AS_WRITTEN, ParityReport, StageParity

INFO = ModelInfo("mine", (3, 8, 9), (0.5,), (0.5,), "bicubic", 1.0, "center", 7)
LATENCY = Latency("engine", 8, 1.0, 2.0, 3.0, 4.0, 5.0, (6.0, 7.0))


def every_field(record: Any, **expected: object) -> None:
    """The record says exactly this, and leaves no field of its kind to a default."""
    assert set(expected) == set(type(record).model_fields)
    assert {name: getattr(record, name) for name in expected} == expected


def test_the_model() -> None:
    found = findings.to_model(INFO, "w.pth", 1234)
    every_field(found, name="mine", weights="w.pth", input_shape=(3, 8, 9), classes=7, parameters=1234)


def judged() -> tuple[Evaluation, np.ndarray]:
    """A classifier of 7 classes against another one on 12 labelled images."""
    logits = np.random.default_rng(0).normal(size=(12, 7)).astype(np.float32)
    labels = np.arange(12) % 7
    done = evaluate(
        lambda images: logits[: len(images)] * 1.1,
        np.zeros((12, 3, 8, 9), np.float32),
        labels=labels,
        against=lambda images: logits[: len(images)],
    )
    return done, labels == logits.argmax(1)


def test_the_row_of_a_candidate_that_ran() -> None:
    done, hits = judged()
    candidate = Candidate("engine", "An engine", None, "onnx", deployed=True)
    row = findings.to_row(candidate, "pytorch-fp32", Done(done, done), {"mine": 0.5})
    assert (row.id, row.title, row.deployed, row.not_run, row.not_finite) == ("engine", "An engine", True, None, 0)
    assert row.accuracy is not None and row.accuracy.top1 == pytest.approx(100 * hits.mean())
    assert row.comparison is not None and row.original is not None
    assert (row.comparison.to, row.original.to) == ("onnx", "pytorch-fp32")
    assert row.original.agreement == 100 and row.original.largest_difference == done.largest_difference
    assert row.own == [schema.Figure(name="mine", value=0.5)]
    assert {one.name for one in row.labelled} == {one.figure.name for one in done.figures if one.figure.of == "labels"}


def test_the_row_of_a_candidate_that_did_not_run_and_of_the_original() -> None:
    row = findings.to_row(Candidate("engine", "An engine", None, not_run="no GPU"), "pytorch-fp32", None, {})
    assert (row.not_run, row.accuracy, row.comparison, row.original) == ("no GPU", None, None, None)
    done, _ = judged()
    original = findings.to_row(Candidate("pytorch-fp32", "PyTorch", None), "pytorch-fp32", Done(done, done), {})
    assert original.original is None and original.comparison is None and original.accuracy is not None


def test_a_figure_and_what_it_means() -> None:
    done, _ = judged()
    measured = next(one for one in done.figures if one.figure.headline)
    figure = measured.figure
    every_field(
        findings.to_figure(measured),
        output=measured.output,
        name=figure.name,
        value=measured.value,
        interval=measured.interval,
        loss_interval=None,
    )
    names = ("name", "title", "told", "unit", "of", "higher_is_better", "headline", "column", "gate", "drop", "floor")
    every_field(findings.to_meaning(figure), **{name: getattr(figure, name) for name in names})


def test_an_output() -> None:
    done, _ = judged()
    (name,) = done.tasks
    (output,) = findings.to_outputs(done.tasks, {name: (7,)}, [done])
    assert (output.name, output.task, output.shape) == (name, "classes", [7])
    assert {one.name for one in output.figures} == {one.figure.name for one in done.figures}


def test_without_labels_there_is_no_accuracy() -> None:
    logits = np.eye(4, 7, dtype=np.float32)
    done = evaluate(lambda images: logits[: len(images)], np.zeros((4, 3, 8, 9), np.float32))
    assert findings.to_accuracy(done) is None and findings.to_comparison("other", done) is None


def test_the_data() -> None:
    images = np.zeros((4, 3, 8, 9), np.float32)
    calibration, evaluation = as_source(images[:2]), as_source(images, labels=[0, 1, 2, 3])
    found = findings.to_data(calibration, evaluation, ["a", "b", "a"])
    assert (found.calibration_images, found.evaluation_images, found.labelled) == (2, 4, True)
    assert (found.calibration, found.evaluation) == (calibration.description, evaluation.description)
    assert found.notes[-2:] == ["a", "b"]
    assert findings.to_data(evaluation, calibration).labelled is False


def test_an_iterable_is_counted_by_what_was_predicted() -> None:
    def source() -> ImageSource:
        items = [{"images": torch.zeros(2, 3, 4, 4), "labels": torch.zeros(2)}]
        return as_source(items, keep_labels=True)

    seen = Predictions("", {"torch-fp32": np.zeros(2, np.int32)}, labels=np.zeros(2, np.int32))
    found = findings.to_data(source(), source(), predictions=seen)
    assert (found.evaluation_images, found.labelled) == (2, True)
    assert (found.images_sha256, found.labels_sha256) == (None, None), "nobody looked"
    seen = Predictions("images", seen.rows, seen.labels, truth="labels")
    found = findings.to_data(source(), source(), predictions=seen)
    assert (found.images_sha256, found.labels_sha256) == ("images", "labels")


def test_a_step() -> None:
    every_field(findings.to_step(Step("load", 1.5)), name="load", seconds=1.5)


def test_a_block() -> None:
    record = BlockRecord("blocks.0", 0.5, 0.25, 30, 2.5, ((0, 0.4), (16, 0.3)), "converged")
    every_field(
        findings.to_block(record),
        name="blocks.0",
        loss_before=0.5,
        loss_after=0.25,
        iterations=30,
        seconds=2.5,
        curve=[(0, 0.4), (16, 0.3)],
        stopped="converged",
    )


def test_how_a_grid_is_used() -> None:
    found = findings.to_grid_use(GridUse("blocks.0.qkv", "activation", 4, 14, 16, 0.5, 0.75))
    told = {"bits": 4, "used_levels": 14, "levels": 16, "clipped": 0.5, "evaluated": 0.75}
    every_field(found, name="blocks.0.qkv", kind="activation", **told)


def test_sensitivity() -> None:
    found = findings.to_sensitivity(Sensitivity("blocks.0", "layer", 0.5, 0.25))
    every_field(found, name="blocks.0", kind="layer", alone=0.5, spared=0.25)


def test_a_target_that_failed_and_one_that_compiled() -> None:
    runtime = find_runtime("tensorrt-rtx")
    every_field(
        findings.to_target(Engine(runtime, "refused", "no GPU", failed=True)),
        name="tensorrt-rtx",
        not_built="refused",
        not_run="no GPU",
        failed=True,
        compile_seconds=None,
        ships=None,
        remark=None,
    )
    assert findings.to_target(Engine(runtime, compile_seconds=2.5)).compile_seconds == 2.5


def test_a_target_that_gains_nothing_from_integers() -> None:
    cuda = find_runtime("onnxruntime-cuda")
    found = findings.to_target(Engine(cuda, None, "no GPU", ships_original=True), "model.fp16.onnx")
    assert (found.not_built, found.not_run, found.ships, found.remark) == (
        None,
        "no GPU",
        "model.fp16.onnx",
        cuda.remark,
    )


def block_plan() -> BlockPlan:
    return BlockPlan(
        name="blocks.0",
        kernels=9,
        gemms=4,
        int8_gemms=3,
        weight_only_gemms=1,
        attention="int8",
        dequantized_weights=2,
        conversions=5,
        twin_kernels=8,
        left_alone=6,
        fp8_gemms=11,
        fp4_gemms=12,
    )


def test_an_audit() -> None:
    found = findings.to_audit(EngineAudit("tensorrt-rtx", "8.9", (block_plan(),), ("a promise",)))
    block = findings.to_audit_block(block_plan())
    every_field(found, target="tensorrt-rtx", compute_capability="8.9", blocks=[block], broken=["a promise"])
    every_field(
        block,
        name="blocks.0",
        kernels=9,
        gemms=4,
        int8_gemms=3,
        fp8_gemms=11,
        fp4_gemms=12,
        weight_only_gemms=1,
        left_alone=6,
        attention="int8",
        dequantized_weights=2,
        conversions=5,
        twin_kernels=8,
    )


STAGE = StageParity("blocks.0", 0.5, 0.25, 0.125, 0.75, Flips(2, 0.0625, 0.03125))


@pytest.mark.parametrize("difference", [0.5, math.nan, math.inf])
def test_a_stage_in_percent_and_without_what_json_cannot_say(difference: float) -> None:
    every_field(
        findings.to_stage_parity(replace(STAGE, largest_difference=difference)),
        name="blocks.0",
        largest_difference=difference if math.isfinite(difference) else None,
        differing=12.5,
        largest_step=2,
        flipped=6.25,
    )
    bare = findings.to_stage_parity(replace(STAGE, flips=None))
    assert (bare.largest_step, bare.flipped) == (None, None)


def test_parity_of_one_file() -> None:
    report = ParityReport((STAGE,), 1.0, 0.5, AS_WRITTEN, True)
    found = findings.to_parity(Comparison("toy", "model.onnx", report), {"model.onnx": ["w"], "other.onnx": ["v"]})
    every_field(
        found,
        to="toy",
        stages=[findings.to_stage_parity(STAGE)],
        first_parting="blocks.0",
        differing_weights=["w"],
    )
    well = replace(report, stages=(replace(STAGE, flips=None, differing_share=0.0),))
    assert findings.to_parity(Comparison("toy", "another.onnx", well), {}).first_parting is None


def test_a_latency_and_that_of_the_yardstick() -> None:
    times = {"batch_size": 8, "p50_ms": 1.0, "p90_ms": 2.0, "p99_ms": 3.0, "images_per_second": 4.0, "floor_ms": 0.5}
    every_field(
        findings.to_latency(LATENCY, "onnx-fp32", 0.5),
        **times,
        ratio_to="onnx-fp32",
        speedup=5.0,
        speedup_interval=(6.0, 7.0),
    )
    every_field(findings.to_latency(LATENCY, None, 0.5), **times, ratio_to=None, speedup=None, speedup_interval=None)


def test_rows_get_the_speeds_of_their_ids() -> None:
    rows = [schema.Row(id="a", title="A"), schema.Row(id="b", title="B", peak_memory_bytes=1)]
    speed = Speed((LATENCY, replace(LATENCY, batch_size=1)), "onnx-fp32", (0.5, None), 77)
    found = findings.with_speed(rows, {"a": speed})
    assert [(one.batch_size, one.floor_ms, one.ratio_to) for one in found[0].latency] == [
        (8, 0.5, "onnx-fp32"),
        (1, None, "onnx-fp32"),
    ]
    assert found[0].peak_memory_bytes == 77
    assert (found[1].latency, found[1].peak_memory_bytes) == ([], None)


def test_objects_are_compared_without_a_largest_difference() -> None:
    truth = true_objects(3)
    images = np.zeros((3, 3, 8, 9), np.float32)
    done = evaluate(lambda _: found_objects(truth), images, against=lambda _: found_objects(truth, noise=0))
    assert done.largest_difference is None
    found = findings.to_comparison("other", done)
    assert found is not None and found.largest_difference is None
    assert [one.name for one in found.figures] == ["agreement"]
