from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from fimaq_deploy.measure.memory import own_peak_bytes, peak_memory_bytes

MEBIBYTE = 2**20
pytestmark = pytest.mark.skipif(own_peak_bytes() is None, reason="the system does not tell")


def scaled(path: Path, mebibytes: int) -> Path:
    """Images times a stored tensor of that size."""
    stored = np.ones((mebibytes * MEBIBYTE // 4 // 16, 16), np.float32)
    nodes = [
        helper.make_node("ReduceMean", ["w"], ["m"], keepdims=0),
        helper.make_node("Mul", ["images", "m"], ["logits"]),
    ]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 1, 2, 2]) for name in ("images", "logits")]
    graph = helper.make_graph(nodes, "scaled", [ends[0]], [ends[1]], [numpy_helper.from_array(stored, "w")])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10), path)
    return path


def test_a_larger_file_needs_more_by_at_least_its_size(tmp_path: Path) -> None:
    small, large = (
        peak_memory_bytes(scaled(tmp_path / f"{size}.onnx", size), "onnxruntime-cpu", threads=1) for size in (1, 128)
    )
    assert small is not None and large is not None
    assert 10 * MEBIBYTE < small < large - 100 * MEBIBYTE


def test_the_memory_of_this_process_is_not_counted(tmp_path: Path) -> None:
    held = np.ones(512 * MEBIBYTE, np.uint8)
    own, alone = own_peak_bytes(), peak_memory_bytes(scaled(tmp_path / "1.onnx", 1), "onnxruntime-cpu", threads=1)
    assert own is not None and alone is not None
    assert own > held.nbytes > alone


def test_a_file_that_fails_alone_is_our_bug_and_says_which(tmp_path: Path) -> None:
    (tmp_path / "broken.onnx").write_bytes(b"no model")
    with pytest.raises(RuntimeError, match=r"running .*broken\.onnx alone failed"):
        peak_memory_bytes(tmp_path / "broken.onnx", "onnxruntime-cpu")


def test_a_process_that_the_system_ends_leaves_the_figure_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As it does where memory is short: a build that is finished but for this is not lost."""
    ended = tmp_path / "python"
    ended.write_text("#!/bin/sh\nkill -9 $$\n")
    ended.chmod(0o755)
    monkeypatch.setattr("sys.executable", str(ended))
    assert peak_memory_bytes(scaled(tmp_path / "1.onnx", 1), "onnxruntime-cpu") is None
