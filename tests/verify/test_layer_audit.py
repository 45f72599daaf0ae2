"""The function and the command. What placements compile to: tests/export/test_tensorrt_twin.py."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest

from fimaq_deploy.cli import main
from fimaq_deploy.errors import UserError
from fimaq_deploy.verify.layer_audit import audit

pytest.importorskip("tensorrt_rtx")

TARGET = "tensorrt-rtx"


def test_nodes_without_names_are_found(model_path):
    """The blocks of a file without module names are one."""
    (found,) = audit(model_path, TARGET, compute_for=[(8, 9)])
    (block,) = found.blocks
    assert (block.name, block.gemms, block.int8_gemms, block.attention) == ("model", 1, 1, None)


def test_only_compiled_targets_have_a_plan(model_path):
    with pytest.raises(UserError, match="onnxruntime-cpu has no layer plan"):
        audit(model_path, "onnxruntime-cpu")
    with pytest.raises(UserError, match="--against"):
        audit(model_path, TARGET, require=["no-more-kernels"])


def run(*arguments: str | Path) -> int:
    with pytest.raises(SystemExit) as ended:
        main(["audit", *map(str, arguments)])
    return int(ended.value.code or 0)


def test_the_command_prints_a_table_and_writes_json(model_path, tmp_path, capsys):
    assert run(model_path, "--target", TARGET, "--sm", "89", "--json", tmp_path / "audit.json") == 0
    assert "model" in capsys.readouterr().out
    document = json.loads((tmp_path / "audit.json").read_text())
    (first,) = document["audits"]
    assert document["schema"] == "fimaq-deploy/audit/1"
    assert (first["compute_capability"], first["blocks"][0]["int8_gemms"], first["broken"]) == ("8.9", 1, [])


def test_a_broken_promise_is_exit_code_1(model_path, tmp_path, capsys):
    """A scale for each channel of an activation: a graph that parses and runs in floating point."""
    model = onnx.load(model_path)
    for node in model.graph.node:
        if node.name == "quantize" or "xq" in node.input:
            node.input[1], node.input[2] = "sc", "zc"
    arrays = {"sc": np.linspace(0.02, 0.08, 16, dtype=np.float16), "zc": np.zeros(16, np.int8)}
    model.graph.initializer.extend(onnx.numpy_helper.from_array(array, name) for name, array in arrays.items())
    onnx.save(model, tmp_path / "channels.onnx")
    assert run(tmp_path / "channels.onnx", "--target", TARGET, "--sm", "89", "--json", "-") == 1
    captured = capsys.readouterr()
    (found,) = json.loads(captured.out)["audits"]
    assert found["blocks"][0]["int8_gemms"] == 0
    assert "broken: tensorrt-rtx, compute capability 8.9: model: quantized, but compiled to" in captured.err
