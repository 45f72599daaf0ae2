"""Differences in what two builds cost: time and size."""

from __future__ import annotations

from collections.abc import Iterator

from fimaq_deploy.report.comparison.records import Difference, verdict_of
from fimaq_deploy.report.comparison.statistics import ratio_interval
from fimaq_deploy.report.schema import Latency, Row


def latency_differences(new: Row, old: Row, limit: float | None, same_hardware: bool) -> Iterator[Difference]:
    """Of every batch size that both were measured with beside the same row."""
    earlier = {latency.batch_size: latency for latency in old.latency}
    for latency in new.latency:
        other = earlier.get(latency.batch_size)
        if other and other.ratio_to == latency.ratio_to and latency.speedup and other.speedup:
            yield _slowdown(new, (latency, latency.speedup), (other, other.speedup), limit, same_hardware)


def size_differences(new: Row, old: Row, limit: float | None) -> Iterator[Difference]:
    """Sizes are exact."""
    if not (new.size_bytes and old.size_bytes):
        return
    loss = 100 * (new.size_bytes - old.size_bytes) / old.size_bytes
    yield Difference(
        row=new.id,
        title=new.title,
        figure="size",
        of="size",
        measure="size",
        new=new.size_bytes,
        baseline=old.size_bytes,
        loss=loss,
        limit=limit,
        verdict=verdict_of(loss, limit, real=loss != 0),
    )


def _slowdown(
    row: Row, new: tuple[Latency, float], old: tuple[Latency, float], limit: float | None, same_hardware: bool
) -> Difference:
    """The ratio of both speed-ups over full precision: whatever slows a whole machine down is in neither of them."""
    (latency, speedup), (earlier, old_speedup) = new, old
    interval = None
    if latency.speedup_interval and earlier.speedup_interval:
        low, high = ratio_interval(old_speedup, earlier.speedup_interval, speedup, latency.speedup_interval)
        interval = 100 * (low - 1), 100 * (high - 1)
    loss = 100 * (old_speedup / speedup - 1)
    judged = interval is not None and same_hardware
    held = limit if judged else None
    return Difference(
        row=row.id,
        title=row.title,
        figure="latency",
        of="latency",
        measure=f"time, batch {latency.batch_size}",
        batch_size=latency.batch_size,
        new=speedup,
        baseline=old_speedup,
        new_ms=latency.p50_ms,
        baseline_ms=earlier.p50_ms,
        loss=loss,
        interval=interval,
        limit=held,
        verdict=verdict_of(loss, held, not interval[0] <= 0 <= interval[1]) if interval and judged else "not judged",
    )
