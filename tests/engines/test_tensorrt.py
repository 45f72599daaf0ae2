"""Engines compiled ahead of time by TensorRT-RTX, which needs no GPU. Running them does, so it is not tested here."""

from __future__ import annotations

import os
import signal
import threading

import numpy as np
import onnx
import pytest

from fimaq_deploy.engines import load_engine
from fimaq_deploy.engines.tensorrt import BatchProfile, build_engine
from fimaq_deploy.engines.tensorrt_library import compute_capabilities, not_buildable, not_runnable
from fimaq_deploy.engines.versions import BuildOptions
from fimaq_deploy.errors import UserError

pytest.importorskip("tensorrt_rtx")


def build(onnx_path, **options):
    options.setdefault("compute_for", [(8, 9)])
    return build_engine(onnx_path, onnx_path.with_suffix(".tensorrt-rtx.engine"), "tensorrt-rtx", **options)


def test_an_engine_is_compiled_without_a_gpu(model_path, capfd):
    engine = build(model_path)
    assert engine.path.stat().st_size == engine.size_bytes > 0
    assert engine.build_seconds > 0 and engine.log == ""
    assert list(engine.path.parent.glob("*.partial")) == []
    assert capfd.readouterr() == ("", "")


def test_the_verbose_log_shows_the_integer_gemm(model_path):
    plan = [line for line in build(model_path, verbose=True).log.splitlines() if "LayerType: gemm" in line]
    assert len(plan) == 1 and "Datatype: Int8" in plan[0]


def test_every_known_gpu_generation_can_be_a_target(model_path):
    assert (8, 9) in compute_capabilities()
    assert build(model_path, compute_for=None).size_bytes >= build(model_path).size_bytes
    with pytest.raises(UserError, match=r"compute capability 9.0: .* compiles for .*8\.9"):
        build(model_path, compute_for=[(9, 0)])


def in_8_bit_floats(path):
    """x · w, both in FLOAT8E4M3FN."""
    half, few = onnx.TensorProto.FLOAT16, onnx.TensorProto.FLOAT8E4M3FN
    make = onnx.helper.make_tensor
    stored = [make("s", half, [], [0.1]), make("z", few, [], [0.0]), make("w", few, [64, 64], [1.0] * 4096)]
    node = onnx.helper.make_node
    nodes = [
        node("QuantizeLinear", ["x", "s", "z"], ["q"], "q"),
        node("DequantizeLinear", ["q", "s", "z"], ["a"], "a"),
        node("DequantizeLinear", ["w", "s"], ["b"], "b"),
        node("MatMul", ["a", "b"], ["y"], "product"),
    ]
    ends = [[onnx.helper.make_tensor_value_info(name, half, ["N", 64, 64])] for name in "xy"]
    opset = [onnx.helper.make_opsetid("", 21)]
    graph = onnx.helper.make_graph(nodes, "main", *ends, initializer=stored)
    onnx.save(onnx.helper.make_model(graph, opset_imports=opset, ir_version=10), path)
    return path


def test_8_bit_floats_are_compiled_for_the_gpus_that_have_them(tmp_path):
    path = in_8_bit_floats(tmp_path / "floats.onnx")
    engine = build(path, compute_for=None, verbose=True)
    assert engine.since == (8, 9) and "Datatype: FP8" in engine.log
    assert build(path, compute_for=[(8, 0), (12, 0)]).since == (12, 0)
    with pytest.raises(UserError, match=r"compute capability 8\.6: the file multiplies FP8, which needs 8\.9 or newer"):
        build(path, compute_for=[(8, 0), (8, 6)])


def test_what_the_parser_refuses_is_one_line(model_path):
    model = onnx.load(model_path)
    zero_point = next(tensor for tensor in model.graph.initializer if tensor.name == "z")
    zero_point.CopyFrom(onnx.numpy_helper.from_array(np.array(3, np.int8), "z"))
    onnx.save(model, model_path)
    with pytest.raises(UserError, match=r"QuantizeLinear.*[Nn]on-zero zero point is not supported") as caught:
        build(model_path)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_no_model_is_a_user_error(tmp_path):
    (tmp_path / "text.onnx").write_text("not a model")
    with pytest.raises(UserError, match="cannot compile"):
        build(tmp_path / "text.onnx")
    with pytest.raises(UserError, match="no ONNX file"):
        build(tmp_path / "none.onnx")


def test_a_profile_must_be_ordered():
    with pytest.raises(UserError, match="minimum <= optimum <= maximum"):
        BatchProfile(4, 2, 8)


@pytest.mark.skipif(not_buildable("tensorrt") is None, reason="TensorRT and a GPU are here")
def test_tensorrt_without_its_library_or_gpu_says_so(model_path, tmp_path):
    with pytest.raises(UserError, match="no tensorrt engine can be built here"):
        build_engine(model_path, tmp_path / "model.engine", "tensorrt")


@pytest.mark.skipif(not_runnable("tensorrt-rtx") is None, reason="a GPU is here")
def test_running_without_a_gpu_says_so(model_path):
    engine = build(model_path)
    with pytest.raises(UserError, match=r"tensorrt-rtx cannot run .*driver"):
        load_engine(engine.path)


def test_a_workspace_limit_is_taken_and_a_timing_cache_is_refused(model_path):
    assert build(model_path, options=BuildOptions(workspace_bytes=1 << 28)).size_bytes > 0
    with pytest.raises(UserError, match="times no kernels"):
        build(model_path, options=BuildOptions(timing_cache="timing.cache"))


def test_a_portable_engine_starts_at_ampere(model_path):
    (line,) = [one for one in build(model_path, compute_for=None, verbose=True).log.splitlines() if "[(8, 0)" in one]
    assert "(12, 0)" in line and "(7, 5)" not in line


def test_ctrl_c_ends_a_compilation_and_leaves_no_engine(model_path):
    """The compiler drops a KeyboardInterrupt that reaches it in its logger."""
    engine = model_path.with_suffix(".tensorrt-rtx.engine")
    engine.unlink(missing_ok=True)
    asked = threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT))
    asked.start()
    with pytest.raises(KeyboardInterrupt):
        for _ in range(100):  # one of them is short
            build(model_path, compute_for=None, verbose=True)
            engine.unlink()
    asked.join()
    assert list(engine.parent.glob("*.engine")) == []
