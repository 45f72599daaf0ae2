"""Measurements as the records that a report holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from fimaq_deploy.measure.benchmark import floor_of
from fimaq_deploy.measure.memory import peak_memory_bytes
from fimaq_deploy.measure.rates import measure_operations
from fimaq_deploy.report import schema
from fimaq_deploy.verify.block_parity import Comparison


def with_limits(rows: Sequence[schema.Row], ran: Mapping[str, tuple[Path, str]]) -> list[schema.Row]:
    """The rows of a build's report with their floors and peak memory. ran: file and target by row id."""
    operations = measure_operations()
    return [_with_limits(row, *ran[row.id], operations) if row.id in ran else row for row in rows]


def _with_limits(row: schema.Row, file: Path, target: str, operations: dict[str, float]) -> schema.Row:
    floors = [floor_of(file, target, latency.batch_size, operations) for latency in row.latency]
    latencies = [
        latency.model_copy(update={"floor_ms": floor.milliseconds if floor else None})
        for latency, floor in zip(row.latency, floors, strict=True)
    ]
    largest = max((latency.batch_size for latency in row.latency), default=1)
    return row.model_copy(update={"latency": latencies, "peak_memory_bytes": peak_memory_bytes(file, target, largest)})


def to_schema(comparison: Comparison, weights: dict[str, list[str]]) -> schema.Parity:
    """As a build's report holds it."""
    parting = comparison.report.first_parting
    return schema.Parity(
        to=comparison.to,
        first_parting=parting.name if parting else None,
        differing_weights=weights.get(comparison.file, []),
        stages=[
            schema.StageParity(
                name=stage.name,
                largest_difference=stage.largest_difference,
                differing=100 * stage.differing_share,
                largest_step=stage.flips.largest_step if stage.flips else None,
                flipped=100 * stage.flips.flipped if stage.flips else None,
            )
            for stage in comparison.report.stages
        ],
    )
