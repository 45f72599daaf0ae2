"""Products are counted and timed alone, each with its own quantizers."""

from __future__ import annotations

from itertools import count
from pathlib import Path

import numpy as np
import pytest
from fixtures.layers import HIDDEN, TOKENS, WIDTH

from fimaq_deploy.engines.runtimes import find_runtime
from fimaq_deploy.measure.products import Timed, pieces_of, time_products


def test_they_are_counted_for_one_image(layers_file: Path) -> None:
    first, second, last = pieces_of(layers_file)
    assert [first.layer, second.layer, last.layer] == ["fc1", "fc1", "fc2"]
    assert (first.operations, first.weights) == (2 * TOKENS * WIDTH * HIDDEN, WIDTH * HIDDEN)
    assert (first.reads, first.writes) == (TOKENS * WIDTH, TOKENS * HIDDEN)
    assert first.is_integer and not last.is_integer
    assert (last.reads, last.writes) == (TOKENS * HIDDEN, TOKENS * WIDTH)


@pytest.mark.parametrize("target", ["onnxruntime-cpu", "openvino-cpu"])
def test_they_run_alone_and_a_layer_takes_the_sum_of_its_calls(layers_file: Path, target: str) -> None:
    if target == "openvino-cpu":
        pytest.importorskip("openvino")
    pieces, ticks = pieces_of(layers_file), count()
    # A clock by which the first call of a round takes a second, the second one two, and so on.
    runs = 6  # two products that differ, each as written, in floats and not at all

    def clock() -> float:
        turn = next(ticks) % (2 * runs)
        return float(turn // 2 + 1) if turn % 2 else 0.0

    timed = time_products(pieces, find_runtime(target), clock)
    assert list(timed.own) == ["fc1", "fc2"] and len(timed.own["fc1"]) == 6
    # In the order as written, in floats, not at all: 1, 2, 3 of fc1 and 4, 5, 6 of fc2. Nothing takes less than a call.
    assert (timed.floats["fc2"] == timed.own["fc2"]).all(), "what is in floats already takes what it takes"
    assert all((each > 0).all() for each in (*timed.own.values(), *timed.floats.values()))


def test_speed_is_the_ratio_of_sums_with_an_interval() -> None:
    rounds = np.ones(20)
    timed = Timed({"a": rounds, "b": rounds}, {"a": 3 * rounds, "b": rounds})
    assert timed.speed() == (2.0, (2.0, 2.0))
    noisy = Timed({"a": np.array([1.0, 2, 2, 2, 2, 4])}, {"a": np.full(6, 4.0)})
    value, (low, high) = noisy.speed()
    assert (low, value, high) == (1.0, 4.0, 4.0), "what disturbs a run only adds to it"
    disturbed = Timed({"a": np.full(6, 1.0)}, {"a": np.full(6, 2.0)})
    assert disturbed.speed() == (2.0, (2.0, 2.0))
