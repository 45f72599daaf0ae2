"""A small file in its full and its quantized form. The command: tests/cli/test_bench.py."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from fimaq_deploy.errors import UserError
from fimaq_deploy.measure.benchmark import bench

SIDE = 16


def mlp(path: Path, quantized: bool, side: int = SIDE) -> Path:
    """Images (N, 1, side, side) through one square layer."""
    width = side * side
    weights = np.random.default_rng(0).integers(-128, 128, (width, width)).astype(np.int8)
    stored = {"flat": np.array([-1, width]), "s": np.float32(0.02), "z": np.int8(0), "w": weights}
    nodes = [helper.make_node("Reshape", ["images", "flat"], ["x"])]
    if quantized:
        nodes += [
            helper.make_node("QuantizeLinear", ["x", "s", "z"], ["xq"]),
            helper.make_node("DequantizeLinear", ["xq", "s", "z"], ["xd"]),
            helper.make_node("DequantizeLinear", ["w", "s", "z"], ["wd"]),
            helper.make_node("MatMul", ["xd", "wd"], ["logits"]),
        ]
    else:
        stored = {"flat": stored["flat"], "w": weights.astype(np.float32)}
        nodes.append(helper.make_node("MatMul", ["x", "w"], ["logits"]))
    images, logits = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in (("images", ["N", 1, side, side]), ("logits", ["N", width]))
    )
    initializers = [numpy_helper.from_array(np.asarray(array), name) for name, array in stored.items()]
    graph = helper.make_graph(nodes, "mlp", [images], [logits], initializers)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10), path)
    return path


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bench")
    return mlp(folder / "fp32.onnx", False), mlp(folder / "int8.onnx", True)


def test_every_file_is_measured_at_every_batch_size(files):
    original, quantized = files
    rows = bench([quantized], against=original, batch_sizes=(1, 4), rounds=3, threads=1)
    assert [(Path(row.file).name, row.latency.batch_size) for row in rows] == [
        ("fp32.onnx", 1),
        ("int8.onnx", 1),
        ("fp32.onnx", 4),
        ("int8.onnx", 4),
    ]
    assert rows[0].latency.speedup == 1
    assert all(row.peak_memory_bytes is None or row.peak_memory_bytes > 10**7 for row in rows)
    floats, integers = (row.floor.work for row in rows[:2])
    assert floats.operations == {"float32": 2 * SIDE**4} and integers.operations == {"int8": 2 * SIDE**4}
    assert floats.weight_bytes == 4 * integers.weight_bytes


def test_files_of_two_sizes_are_refused(files, tmp_path):
    with pytest.raises(UserError, match="several sizes"):
        bench([files[0], mlp(tmp_path / "other.onnx", False, side=8)])


def test_the_document_holds_every_row_and_names_the_yardstick(files):
    rows = bench([files[1]], against=files[0], batch_sizes=(2,), rounds=3, threads=1)
    document = json.loads(json.dumps(rows.document()))
    assert (document["schema"], document["speedup_over"]) == ("fimaq-deploy/bench/1", f"{files[0]} on onnxruntime-cpu")
    assert [set(row) for row in document["rows"]] == [
        {"file", "target", "latency", "floor", "peak_memory_bytes"} for _ in rows
    ]
    assert document["rows"][1]["latency"]["speedup"] == rows[1].latency.speedup


def test_nothing_to_time_is_refused():
    with pytest.raises(UserError, match="nothing to time"):
        bench([])


@pytest.mark.parametrize(
    ("numbers", "said"),
    [
        ({"batch_sizes": ()}, "no batch size"),
        ({"batch_sizes": (0,)}, "--batch 0: expected 1 to 4,096"),
        ({"batch_sizes": (1, 10**6)}, "--batch 1000000: expected 1 to 4,096"),
        ({"rounds": 0}, "--rounds 0"),
        ({"seconds": 0.0}, "--seconds 0.0"),
        ({"seconds": float("nan")}, "--seconds nan"),
        ({"seconds": 1e300}, "--seconds 1e"),
    ],
)
def test_numbers_that_cannot_be_meant_are_refused(files, numbers, said):
    with pytest.raises(UserError, match=said):
        bench([files[0]], **numbers)
