"""`fimaq-deploy bench` on a small file in its full and its quantized form."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from fimaq_deploy.cli import main
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


def run(*arguments):
    with pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    return ended.value.code or 0


def test_the_command_prints_a_table_and_ends_in_json(files, capsys):
    assert run("bench", files[1], "--against", files[0], "--batch", 2, "--rounds", 3, "--threads", 1) == 0
    *table, last = capsys.readouterr().out.splitlines()
    assert "batch 2" in table[0] and "floor ms" in table[0] and any("×" in line for line in table)
    document = json.loads(last)
    assert document["schema"] == "fimaq-deploy/bench/1" and document["speedup_over"].startswith(str(files[0]))
    assert {"file", "target", "latency", "floor", "peak_memory_bytes"} == set(document["rows"][1])
    assert document["rows"][1]["floor"]["milliseconds"] > 0


def test_json_alone_and_in_a_file(files, tmp_path, capsys):
    arguments = ("bench", files[1], "--batch", 1, "--rounds", 3, "--threads", 1, "--json")
    assert run(*arguments, "-") == 0
    assert len(json.loads(capsys.readouterr().out)["rows"]) == 1
    assert run(*arguments, tmp_path / "bench.json") == 0
    assert json.loads((tmp_path / "bench.json").read_text())["rows"][0]["target"] == "onnxruntime-cpu"


def test_files_of_two_sizes_are_refused(files, tmp_path):
    with pytest.raises(UserError, match="several sizes"):
        bench([files[0], mlp(tmp_path / "other.onnx", False, side=8)])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("none.onnx",), "no ONNX file none.onnx"),
        (("model.pt",), "neither a .onnx nor a .engine file"),
        (("{file}", "--target", "tensorflow"), "unknown target"),
        (("{file}", "--batch", "0"), "expected numbers of at least 1"),
        (("none.tensorrt-rtx.engine",), "none.tensorrt-rtx.engine"),
    ],
)
def test_bad_input_is_one_line(files, capsys, arguments, said):
    assert run("bench", *(argument.format(file=files[0]) for argument in arguments)) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ") and said in line
