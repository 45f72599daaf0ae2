from __future__ import annotations

import time

import numpy as np
import pytest

from fimaq_deploy.engines.runner import Runner
from fimaq_deploy.errors import UserError
from fimaq_deploy.measure.latency import compare_latency


def sleeper(milliseconds: float, calls: list[str], name: str) -> Runner:
    def run(images: np.ndarray) -> np.ndarray:
        calls.append(name)
        time.sleep(milliseconds / 1000)
        return np.zeros((len(images), 2), np.float32)

    return Runner(name, (None, 1, 2, 2), run)


def test_engines_take_turns_and_are_compared_with_the_first():
    calls: list[str] = []
    found = compare_latency(
        {"slow": sleeper(8, calls, "slow"), "fast": sleeper(2, calls, "fast")}, (1, 4), rounds=4, warm_up=0
    )
    assert calls == ["slow", "fast"] * 8
    assert [(row.name, row.batch_size) for row in found] == [("slow", 1), ("fast", 1), ("slow", 4), ("fast", 4)]
    assert found[0].speedup == 1 and found[1].speedup > 1
    assert all(row.p50_ms <= row.p90_ms <= row.p99_ms for row in found)
    assert found[2].images_per_second == pytest.approx(4000 / found[2].p50_ms)


def test_time_ends_the_rounds():
    calls: list[str] = []
    compare_latency({"a": sleeper(5, calls, "a")}, (1,), rounds=1000, warm_up=2, seconds=0.0)
    assert len(calls) == 5


def test_own_images_are_repeated_to_the_batch_size(model_path, batch):
    from fimaq_deploy.engines import load_engine

    (row,) = compare_latency({"ort": load_engine(model_path, threads=1)}, (4,), rounds=3, images=batch)
    assert row.batch_size == 4


@pytest.mark.parametrize("options", [{"batch_sizes": (0,)}, {"batch_sizes": ()}, {"rounds": 0}])
def test_nothing_to_time_is_a_user_error(options):
    with pytest.raises(UserError):
        compare_latency({"a": sleeper(0, [], "a")}, **options)
