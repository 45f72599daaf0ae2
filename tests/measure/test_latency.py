from __future__ import annotations

from itertools import cycle

import numpy as np
import pytest

from fimaq_deploy.engines.runner import Runner
from fimaq_deploy.errors import UserError
from fimaq_deploy.measure.latency import compare_latency


class Clock:
    """Time that passes only where an engine works."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.calls: list[str] = []

    def __call__(self) -> float:
        return self.seconds

    def engine(self, name: str, *milliseconds: float) -> Runner:
        """An engine that takes these times in turn."""
        turns = cycle(milliseconds)

        def run(images: np.ndarray) -> np.ndarray:
            self.calls.append(name)
            self.seconds += next(turns) / 1000
            return np.zeros((len(images), 2), np.float32)

        return Runner(name, (None, 1, 2, 2), run)


def test_engines_take_turns_and_are_compared_with_the_first():
    clock = Clock()
    engines = {"slow": clock.engine("slow", 8), "fast": clock.engine("fast", 2)}
    found = compare_latency(engines, (1, 4), rounds=4, warm_up=0, clock=clock)
    assert clock.calls == ["slow", "fast"] * 8
    assert [(row.name, row.batch_size) for row in found] == [("slow", 1), ("fast", 1), ("slow", 4), ("fast", 4)]
    assert [row.speedup for row in found] == pytest.approx([1, 4, 1, 4])
    assert [row.p50_ms for row in found] == pytest.approx([8, 2, 8, 2])
    assert [row.images_per_second for row in found] == pytest.approx([125, 500, 500, 2000])


def test_a_speed_up_is_the_median_of_the_turns_and_not_the_ratio_of_medians():
    """A machine that slows down halfway slows both."""
    clock = Clock()
    engines = {"first": clock.engine("first", 2, 2, 20), "second": clock.engine("second", 1, 1, 10)}
    first, second = compare_latency(engines, (1,), rounds=9, warm_up=0, clock=clock)
    assert second.speedup == pytest.approx(2) and second.speedup_interval == pytest.approx((2, 2))
    assert (first.p50_ms, first.p99_ms) == pytest.approx((2, 20))


def test_warming_up_is_not_timed():
    clock = Clock()
    (row,) = compare_latency({"a": clock.engine("a", 100, 100, 1, 1, 1)}, (1,), rounds=3, warm_up=2, clock=clock)
    assert row.p99_ms == pytest.approx(1)


def test_time_ends_the_rounds():
    clock = Clock()
    compare_latency({"a": clock.engine("a", 5)}, (1,), rounds=1000, warm_up=2, seconds=0.0, clock=clock)
    assert len(clock.calls) == 5


def test_own_images_are_repeated_to_the_batch_size(model_path, batch):
    from fimaq_deploy.engines import load_engine

    (row,) = compare_latency({"ort": load_engine(model_path, threads=1)}, (4,), rounds=3, images=batch)
    assert row.batch_size == 4


@pytest.mark.parametrize("options", [{"batch_sizes": (0,)}, {"batch_sizes": ()}, {"rounds": 0}])
def test_nothing_to_time_is_a_user_error(options):
    with pytest.raises(UserError):
        compare_latency({"a": Clock().engine("a", 1)}, **options)
