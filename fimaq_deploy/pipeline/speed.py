"""How fast the files of a build are: latencies measured in turns, and how near they are to what the machine allows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fimaq_deploy.data.batches import images_at_once
from fimaq_deploy.engines.runner import Runner
from fimaq_deploy.measure.benchmark import floor_of
from fimaq_deploy.measure.latency import Latency, compare_latency
from fimaq_deploy.measure.memory import peak_memory_bytes
from fimaq_deploy.measure.rates import measure_operations
from fimaq_deploy.pipeline.variants import LoadedFile

_BATCH, _MANY = 8, 8  # images of a batch, and how many times the pixels of 224×224 they may have


@dataclass(frozen=True)
class Speed:
    """One row. ratio_to: the row that its speed-ups are over, None for that row itself.

    floors_ms: the least time of each latency's batch, None where it is not known.
    peak_memory_bytes: of a process that ran it alone at the largest batch; None where that was not measured.
    """

    latencies: tuple[Latency, ...]
    ratio_to: str | None
    floors_ms: tuple[float | None, ...]
    peak_memory_bytes: int | None = None


def measure_latency(runners: Mapping[str, Runner], **settings: Any) -> dict[str, Speed]:
    """By row id, all measured in one run, in turns; every speed-up is over the first runner.

    settings: of `compare_latency`.
    """
    first = next(iter(runners))
    found = compare_latency(runners, **settings)
    own = {row: tuple(latency for latency in found if latency.name == row) for row in runners}
    return {row: Speed(each, None if row == first else first, (None,) * len(each)) for row, each in own.items()}


def measure_speed(loaded: Sequence[LoadedFile]) -> dict[str, Speed]:
    """The same, with floors and peak memory."""
    sides = [side for one in loaded for side in one.runner.input_shape[-2:]]
    timed = measure_latency({one.row: one.runner for one in loaded}, batch_sizes=batch_sizes(sides))
    operations = measure_operations()
    return {one.row: _with_limits(one, timed[one.row], operations) for one in loaded}


def batch_sizes(sides: Sequence[int | None]) -> list[int]:
    """One image, and several where they are small enough to be run together. sides: of images; None: any."""
    known = [side for side in sides if side is not None]
    together = images_at_once((max(known), max(known)), _MANY * _BATCH) if known else _BATCH
    return [1, _BATCH] if together >= _BATCH else [1]


def _with_limits(loaded: LoadedFile, speed: Speed, operations: dict[str, float]) -> Speed:
    sizes = [latency.batch_size for latency in speed.latencies]
    floors = [floor_of(loaded.file, loaded.runtime.name, size, operations) for size in sizes]
    return Speed(
        latencies=speed.latencies,
        ratio_to=speed.ratio_to,
        floors_ms=tuple(floor.milliseconds if floor else None for floor in floors),
        peak_memory_bytes=peak_memory_bytes(loaded.file, loaded.runtime.name, max(sizes, default=1)),
    )
