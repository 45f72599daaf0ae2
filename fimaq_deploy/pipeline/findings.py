"""What was measured as the records of a report: one function a record, every field by its name.

The measuring modules know nothing of reports. A field that is added to a record on either side is added here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np

from fimaq_deploy.calibration.findings.sensitivity import Sensitivity
from fimaq_deploy.calibration.findings.usage import GridUse
from fimaq_deploy.calibration.learning.reconstruct import BlockRecord
from fimaq_deploy.calibration.rewrites.choice import Choice
from fimaq_deploy.data.plausibility import label_doubts
from fimaq_deploy.data.source import ImageSource
from fimaq_deploy.engines.machine import Environment
from fimaq_deploy.graph.saving import size_of
from fimaq_deploy.measure.accuracy import Evaluation
from fimaq_deploy.measure.banks import OpenBank
from fimaq_deploy.measure.latency import Latency
from fimaq_deploy.measure.own import OwnFigures
from fimaq_deploy.measure.resampling import Measured
from fimaq_deploy.measure.tasks import Figure, Tasks
from fimaq_deploy.models.describe import ModelInfo
from fimaq_deploy.pipeline.compiled import Engine
from fimaq_deploy.pipeline.rows import Candidate, Done
from fimaq_deploy.pipeline.speed import Speed
from fimaq_deploy.pipeline.steps import Step
from fimaq_deploy.report import schema
from fimaq_deploy.report.comparison.statistics import paired_interval, replicate_interval
from fimaq_deploy.report.predictions import Predictions
from fimaq_deploy.verify.block_parity import Comparison
from fimaq_deploy.verify.block_plan import BlockPlan
from fimaq_deploy.verify.layer_audit import EngineAudit
from fimaq_deploy.verify.stages import StageParity


def to_model(info: ModelInfo, weights: str, parameters: int) -> schema.Model:
    return schema.Model(
        name=info.name,
        weights=weights,
        input_shape=info.input_shape,
        classes=info.classes,
        parameters=parameters,
    )


def to_environment(machine: Environment) -> schema.Environment:
    return schema.Environment.model_validate(asdict(machine))


def to_data(
    calibration: ImageSource,
    evaluation: ImageSource,
    notes: Iterable[str] = (),
    predictions: Predictions | None = None,
    bank: OpenBank | None = None,
) -> schema.Data:
    """notes: what a reader should know beside what the sources say. predictions: of the images that were evaluated.

    An iterable knows neither its length nor whether it has labels before it is read; what was predicted tells.
    """
    seen = predictions or Predictions("")
    return schema.Data(
        calibration=calibration.description,
        calibration_images=calibration.count or 0,
        evaluation=evaluation.description,
        evaluation_images=evaluation.count or len(next(iter(seen.rows.values()), ())),
        labelled=evaluation.labelled or seen.labels is not None,
        bank=None if bank is None else bank.description,
        images_sha256=seen.images or None,
        labels_sha256=seen.truth if seen.images else None,
        notes=list(dict.fromkeys((*calibration.notes, *evaluation.notes, *notes))),
    )


def label_notes(predictions: Predictions, classes: int) -> list[str]:
    """What the original's predictions say about the labels of a classifier."""
    original, labels = next(iter(predictions.rows.values()), None), predictions.labels
    if original is None or labels is None or labels.ndim != 1:
        return []
    return label_doubts(original.astype(np.int64), labels.astype(np.int64), classes)


def to_row(
    candidate: Candidate, original: str, done: Done | None, own: OwnFigures, first: Done | None = None
) -> schema.Row:
    """The row of a candidate. original: the id that all are compared with; done: None where it did not run.

    first: what the original did.
    """
    row = schema.Row(
        id=candidate.id,
        title=candidate.title,
        deployed=candidate.deployed,
        not_run=candidate.not_run,
        file=" and ".join(one.name for one in candidate.files) or None,
        size_bytes=_size(candidate.files),
    )
    if done is None:
        return row
    measured = {
        "accuracy": to_accuracy(done.original),
        "comparison": to_comparison(candidate.compared_to, done.neighbour),
        "original": to_comparison(original if candidate.id != original else None, done.original),
        "labelled": [
            to_figure(
                one, None if first is None or first is done else first.original.figure(one.figure.name, one.output)
            )
            for one in done.original.figures
            if one.figure.of == "labels"
        ],
        "own": [schema.Figure(name=name, value=value) for name, value in own.items()],
        "not_finite": done.original.not_finite,
    }
    return row.model_copy(update=measured)


def _size(files: Sequence[Path]) -> int | None:
    """Of all together; None where one is not there."""
    return sum(map(size_of, files)) if files and all(one.is_file() for one in files) else None


def to_outputs(
    tasks: Tasks, shapes: Mapping[str, tuple[int, ...]], evaluations: Sequence[Evaluation]
) -> list[schema.Output]:
    """What the figures of every output mean, of those that were measured. shapes: without the images' axis."""
    measured = {(one.output, one.figure.name) for each in evaluations for one in each.figures}
    return [
        schema.Output(
            name=name,
            task=task.kind,
            shape=list(shapes[name]),
            figures=[to_meaning(figure) for figure in task.figures if (name, figure.name) in measured],
        )
        for name, task in tasks.items()
    ]


def to_meaning(figure: Figure) -> schema.Meaning:
    return schema.Meaning(
        name=figure.name,
        title=figure.title,
        told=figure.told,
        unit=figure.unit,
        of=figure.of,
        higher_is_better=figure.higher_is_better,
        headline=figure.headline,
        column=figure.column,
        gate=figure.gate,
        drop=figure.drop,
        floor=figure.floor,
    )


def to_figure(measured: Measured, original: Measured | None = None) -> schema.Figure:
    """original: the same figure of the original, which a loss is of."""
    return schema.Figure(
        output=measured.output,
        name=measured.figure.name,
        value=measured.value,
        interval=measured.interval,
        loss_interval=_lost(measured, original) if original else None,
    )


def _lost(own: Measured, original: Measured) -> tuple[float, float] | None:
    """The interval of what was lost, of a figure that --max-drop may be about."""
    if not (own.figure.headline or own.figure.drop):
        return None
    better, worse = (original, own) if own.figure.higher_is_better else (own, original)
    if better.images is not None and worse.images is not None:
        return paired_interval(better.images, worse.images)
    if better.replicates is not None and worse.replicates is not None:
        return replicate_interval(better.replicates, worse.replicates)
    return None


def to_accuracy(own: Evaluation) -> schema.Accuracy | None:
    if own.top1 is None or own.interval is None:
        return None
    return schema.Accuracy(
        images=own.images, top1=own.top1, top5=own.top5, interval=own.interval, not_finite=own.not_finite
    )


def to_comparison(to: str | None, own: Evaluation) -> schema.Comparison | None:
    """Agreement in the sense of one answer an image, which only classes have."""
    figures = [to_figure(one) for one in own.figures if one.figure.of == "original"]
    if to is None or (own.largest_difference is None and not figures):
        return None
    main = next(iter(own.tasks.values()))
    return schema.Comparison(
        to=to,
        agreement=own.value("agreement") if main.kind == "classes" else None,
        largest_difference=own.largest_difference,
        figures=figures,
    )


def to_step(step: Step) -> schema.Step:
    return schema.Step(name=step.name, seconds=step.seconds)


def to_block(record: BlockRecord) -> schema.Block:
    return schema.Block(
        name=record.name,
        loss_before=record.loss_before,
        loss_after=record.loss_after,
        iterations=record.iterations,
        seconds=record.seconds,
        curve=list(record.curve),
        stopped=record.stopped,
    )


def to_grid_use(use: GridUse) -> schema.GridUse:
    return schema.GridUse(
        name=use.name,
        kind=use.kind,
        bits=use.bits,
        used_levels=use.used_levels,
        levels=use.levels,
        clipped=use.clipped,
        evaluated=use.evaluated,
    )


def to_sensitivity(found: Sensitivity) -> schema.Sensitivity:
    return schema.Sensitivity(name=found.name, kind=found.kind, alone=found.alone, spared=found.spared)


def to_rewrites(choice: Choice) -> schema.RewriteChoice:
    return schema.RewriteChoice.model_validate(asdict(choice))


def to_target(engine: Engine, ships: str | None = None) -> schema.TargetStatus:
    """ships: the original's file, where that is what to ship."""
    return schema.TargetStatus(
        name=engine.runtime.name,
        not_built=engine.not_built,
        not_run=engine.not_run,
        failed=engine.failed,
        compile_seconds=engine.compile_seconds,
        ships=ships,
        remark=engine.runtime.remark or None,
    )


def to_audit(audit: EngineAudit) -> schema.Audit:
    return schema.Audit(
        target=audit.target,
        compute_capability=audit.compute_capability,
        blocks=[to_audit_block(block) for block in audit.blocks],
        broken=list(audit.broken),
    )


def to_audit_block(block: BlockPlan) -> schema.AuditBlock:
    return schema.AuditBlock(
        name=block.name,
        kernels=block.kernels,
        gemms=block.gemms,
        int8_gemms=block.int8_gemms,
        weight_only_gemms=block.weight_only_gemms,
        left_alone=block.left_alone,
        attention=block.attention,
        dequantized_weights=block.dequantized_weights,
        conversions=block.conversions,
        twin_kernels=block.twin_kernels,
        fp8_gemms=block.fp8_gemms,
        fp4_gemms=block.fp4_gemms,
    )


def to_parity(comparison: Comparison, weights: Mapping[str, list[str]]) -> schema.Parity:
    """weights: by file, those whose integers differ from the quantized model's."""
    parting = comparison.report.first_parting
    return schema.Parity(
        to=comparison.to,
        stages=[to_stage_parity(stage) for stage in comparison.report.stages],
        first_parting=parting.name if parting else None,
        differing_weights=weights.get(comparison.file, []),
    )


def to_stage_parity(stage: StageParity) -> schema.StageParity:
    return schema.StageParity(
        name=stage.name,
        largest_difference=stage.largest_difference,
        differing=100 * stage.differing_share,
        largest_step=stage.flips.largest_step if stage.flips else None,
        flipped=100 * stage.flips.flipped if stage.flips else None,
    )


def to_latency(latency: Latency, ratio_to: str | None, floor_ms: float | None) -> schema.Latency:
    """ratio_to: the row that it was timed against; None for that row itself, which has no speed-up."""
    return schema.Latency(
        batch_size=latency.batch_size,
        p50_ms=latency.p50_ms,
        p90_ms=latency.p90_ms,
        p99_ms=latency.p99_ms,
        images_per_second=latency.images_per_second,
        floor_ms=floor_ms,
        ratio_to=ratio_to,
        speedup=None if ratio_to is None else latency.speedup,
        speedup_interval=None if ratio_to is None else latency.speedup_interval,
    )


def with_speed(rows: Iterable[schema.Row], speeds: Mapping[str, Speed]) -> list[schema.Row]:
    """The rows with the speeds that were measured for their ids, and none else."""
    return [_with_speed(row, speeds.get(row.id, _UNTIMED)) for row in rows]


_UNTIMED = Speed((), None, ())


def _with_speed(row: schema.Row, speed: Speed) -> schema.Row:
    pairs = zip(speed.latencies, speed.floors_ms, strict=True)
    return row.model_copy(
        update={
            "latency": [to_latency(latency, speed.ratio_to, floor) for latency, floor in pairs],
            "peak_memory_bytes": speed.peak_memory_bytes,
        }
    )
