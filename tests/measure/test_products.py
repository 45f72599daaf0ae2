"""Products are counted and timed alone, each with its own quantizers."""

from __future__ import annotations

from itertools import count
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from fimaq_deploy.engines.runtimes import find_runtime
from fimaq_deploy.measure.products import Timed, pieces_of, time_products

TOKENS, WIDTH, HIDDEN = 5, 16, 32


def quantizers(name: str, x: str) -> list[onnx.NodeProto]:
    return [
        helper.make_node("QuantizeLinear", [x, "s", "z"], [f"{name}.q"], f"{name}/QuantizeLinear"),
        helper.make_node("DequantizeLinear", [f"{name}.q", "s", "z"], [f"{name}.dq"], f"{name}/DequantizeLinear"),
    ]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Three layers: integers with a bias, the same twice on other numbers, and one in floats."""
    random = np.random.default_rng(0)
    stored = {
        "s": np.array(0.05, np.float32),
        "z": np.array(0, np.int8),
        "fc1.q_weight": random.integers(-8, 8, (WIDTH, HIDDEN)).astype(np.int8),
        "fc1.q_scale": np.full(HIDDEN, 0.01, np.float32),
        "fc1.bias": np.ones(HIDDEN, np.float32),
        "fc2.weight": random.standard_normal((HIDDEN, WIDTH)).astype(np.float32),
    }
    nodes = [helper.make_node("Relu", ["images"], ["x"], "relu"), *quantizers("fc1", "x")]
    for again in ("", ".again"):
        weight = f"fc1{again}.w"
        nodes += [
            helper.make_node("DequantizeLinear", ["fc1.q_weight", "fc1.q_scale"], [weight], weight, axis=1),
            helper.make_node("MatMul", ["fc1.dq", weight], [f"fc1{again}.y"], f"fc1{again}/MatMul"),
            helper.make_node("Add", [f"fc1{again}.y", "fc1.bias"], [f"fc1{again}.b"], f"fc1{again}/Add"),
        ]
    nodes += [
        helper.make_node("Add", ["fc1.b", "fc1.again.b"], ["sum"], "sum"),
        helper.make_node("MatMul", ["sum", "fc2.weight"], ["logits"], "fc2/MatMul"),
    ]
    images, logits = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", TOKENS, width])
        for name, width in (("images", WIDTH), ("logits", WIDTH))
    )
    weights = [numpy_helper.from_array(array, name) for name, array in stored.items()]
    graph = helper.make_graph(nodes, "g", [images], [logits], weights)
    path = tmp_path / "model.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10), path)
    return path


def test_they_are_counted_for_one_image(file: Path) -> None:
    first, second, last = pieces_of(file)
    assert [first.layer, second.layer, last.layer] == ["fc1", "fc1", "fc2"]
    assert (first.operations, first.weights) == (2 * TOKENS * WIDTH * HIDDEN, WIDTH * HIDDEN)
    assert (first.reads, first.writes) == (TOKENS * WIDTH, TOKENS * HIDDEN)
    assert first.is_integer and not last.is_integer
    assert (last.reads, last.writes) == (TOKENS * HIDDEN, TOKENS * WIDTH)


@pytest.mark.parametrize("target", ["onnxruntime-cpu", "openvino-cpu"])
def test_they_run_alone_and_a_layer_takes_the_sum_of_its_calls(file: Path, target: str) -> None:
    pieces, ticks = pieces_of(file), count()
    # A clock by which the first call of a round takes a second, the second one two, and so on.
    runs = 6  # two products that differ, each as written, in floats and not at all

    def clock() -> float:
        turn = next(ticks) % (2 * runs)
        return float(turn // 2 + 1) if turn % 2 else 0.0

    timed = time_products(pieces, find_runtime(target), clock)
    assert list(timed.own) == ["fc1", "fc2"] and len(timed.own["fc1"]) >= 7
    # In the order as written, in floats, not at all: 1, 2, 3 of fc1 and 4, 5, 6 of fc2. Nothing takes less than a call.
    assert (timed.floats["fc2"] == timed.own["fc2"]).all(), "what is in floats already takes what it takes"
    assert all((each > 0).all() for each in (*timed.own.values(), *timed.floats.values()))


def test_speed_is_the_ratio_of_sums_with_an_interval() -> None:
    rounds = np.ones(20)
    timed = Timed({"a": rounds, "b": rounds}, {"a": 3 * rounds, "b": rounds})
    assert timed.speed() == (2.0, (2.0, 2.0))
    noisy = Timed({"a": np.linspace(1, 2, 21)}, {"a": np.full(21, 3.0)})
    value, (low, high) = noisy.speed()
    assert low < value == 2.0 < high
