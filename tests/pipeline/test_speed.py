from __future__ import annotations

from itertools import count

import numpy as np
import pytest
from fixtures.road import REFERENCE, Road

from fimaq_deploy.engines.runner import Runner
from fimaq_deploy.pipeline.speed import measure_latency, measure_speed
from fimaq_deploy.pipeline.variants import LoadedFile


@pytest.mark.usefixtures("known")
def test_every_file_is_timed_against_the_first_with_its_limits(road: Road) -> None:
    files = {"onnx-fp32": road.files.original, "onnxruntime-cpu": road.files.onnx}
    loaded = [LoadedFile(row, file, REFERENCE, REFERENCE.load(file)) for row, file in files.items()]
    found = measure_speed(loaded)
    assert {row: one.ratio_to for row, one in found.items()} == {"onnx-fp32": None, "onnxruntime-cpu": "onnx-fp32"}
    for speed in found.values():
        assert [latency.batch_size for latency in speed.latencies] == [1, 8]
        assert all(
            floor and floor < latency.p50_ms for floor, latency in zip(speed.floors_ms, speed.latencies, strict=True)
        )
        assert speed.peak_memory_bytes is None or speed.peak_memory_bytes > 10**7


def test_latencies_alone_have_no_limits() -> None:
    """Each call advances the clock by one: an engine that reads it twice more takes three times as long."""
    ticks = count()
    clock = lambda: float(next(ticks))  # noqa: E731

    def slow(images: np.ndarray) -> np.ndarray:
        clock(), clock()
        return images

    runners = {"fast": Runner("fast", (None, 1), lambda images: images), "slow": Runner("slow", (None, 1), slow)}
    found = measure_latency(runners, batch_sizes=(2,), rounds=6, clock=clock)
    assert [(one.p50_ms, one.speedup) for one in found["slow"].latencies] == [(3000.0, 1 / 3)]
    assert (found["fast"].ratio_to, found["slow"].ratio_to) == (None, "fast")
    assert (found["slow"].floors_ms, found["slow"].peak_memory_bytes) == ((None,), None)
