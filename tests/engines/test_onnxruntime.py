from __future__ import annotations

import numpy as np
import onnx
import pytest
from fixtures.versions import quantizes_float16_exactly
from onnx import helper

from fimaq_deploy.engines import load_engine
from fimaq_deploy.engines.onnxruntime import unavailable
from fimaq_deploy.errors import UserError

HALF = 2e-2  # sums of 16 products in FP16


@quantizes_float16_exactly
@pytest.mark.parametrize("optimisations", [False, True])
def test_a_runner_maps_images_to_logits(model_path, batch, expected, optimisations):
    runner = load_engine(model_path, optimisations=optimisations, threads=1)
    logits = runner(batch)
    assert logits.dtype == np.float32 and logits.shape == (3, 16)
    np.testing.assert_allclose(logits, expected, atol=HALF)
    assert runner.name == "onnxruntime-cpu" and runner.input_shape == (None, 1, 4, 4)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.zeros((0, 1, 4, 4), np.float32), "holds no images"),
        (np.zeros((2, 1, 4, 4)), "float64, expected float32"),
        (np.zeros((2, 1, 4, 5), np.float32), r"shape \(2, 1, 4, 5\), expected \(N, 1, 4, 4\)"),
        (np.zeros((1, 4, 4), np.float32), r"shape \(1, 4, 4\)"),
        ([[0.0]], "list, expected a numpy array"),
    ],
)
def test_images_that_do_not_fit_are_refused(model_path, images, message):
    with pytest.raises(UserError, match=message):
        load_engine(model_path)(images)


def test_images_need_not_be_contiguous(model_path, batch):
    runner = load_engine(model_path, threads=1)
    np.testing.assert_array_equal(runner(batch[::-1]), runner(batch[::-1].copy()))


def test_files_that_cannot_be_loaded_are_user_errors(tmp_path):
    (tmp_path / "text.onnx").write_text("not a model")
    with pytest.raises(UserError, match="not a model that ONNX Runtime loads"):
        load_engine(tmp_path / "text.onnx")
    with pytest.raises(UserError, match="no ONNX file"):
        load_engine(tmp_path / "none.onnx")


def test_a_kernel_that_this_version_has_not_is_said_with_the_way_out(tmp_path):
    """1.31.1 has none on CPUs for Hardmax of float64, an operator as old as they get."""
    one = [helper.make_tensor_value_info(name, onnx.TensorProto.DOUBLE, [2]) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Hardmax", ["x"], ["y"])], "none", one[:1], one[1:])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), tmp_path / "m.onnx")
    with pytest.raises(UserError, match=r"Hardmax.*: [\d.]+ has no kernel for it at this opset; take a newer one, or"):
        load_engine(tmp_path / "m.onnx")


@pytest.mark.skipif(unavailable("cuda") is None, reason="a GPU is here")
def test_cuda_without_a_gpu_says_so(model_path):
    with pytest.raises(UserError, match="onnxruntime-cuda cannot run"):
        load_engine(model_path, "onnxruntime-cuda")
