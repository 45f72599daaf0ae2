"""Work counted from graphs, against numbers worked out by hand and against PyTorch's own counter."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch.utils.flop_counter import FlopCounterMode

from fimaq_deploy.errors import UserError
from fimaq_deploy.export import export_fp_onnx
from fimaq_deploy.measure.memory import own_peak_bytes, peak_memory_bytes
from fimaq_deploy.measure.rates import measure_copies, measure_operations
from fimaq_deploy.measure.roofline import FLOAT32, INT8, Rates, Work, count_work, floor_ms
from fimaq_deploy.models.load import load_model


@pytest.mark.parametrize("batch", [1, 5])
def test_an_int8_layer_by_hand(model_path, batch):
    """16×16 weights, an INT8 row in and an FP16 row out for each image."""
    work = count_work(model_path, batch)
    assert work.operations == {INT8: 2 * batch * 16 * 16}
    assert (work.weight_bytes, work.activation_bytes) == (256, batch * 16 * (1 + 2))


def test_a_convolution_and_shared_float_weights_by_hand(tmp_path):
    weights = numpy_helper.from_array(np.ones((6, 2, 3, 3), np.float32), "w")
    nodes = [
        helper.make_node("Conv", ["images", "w"], ["y"], "first", pads=[1, 1, 1, 1], group=2),
        helper.make_node("Conv", ["images", "w"], ["z"], "second", strides=[2, 2], group=2),
        helper.make_node("GlobalAveragePool", ["y"], ["p"]),
        helper.make_node("GlobalAveragePool", ["z"], ["o"]),
        helper.make_node("Add", ["p", "o"], ["logits"]),
    ]
    images, logits = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in (("images", ["N", 4, 8, 8]), ("logits", None))
    )
    model = helper.make_model(
        helper.make_graph(nodes, "g", [images], [logits], [weights]), opset_imports=[helper.make_opsetid("", 21)]
    )
    onnx.save(model, tmp_path / "conv.onnx")
    work = count_work(tmp_path / "conv.onnx", 3)
    results = 3 * 6 * (8 * 8 + 3 * 3)
    assert work.operations == {FLOAT32: 2 * results * 2 * 3 * 3}
    assert (work.weight_bytes, work.activation_bytes) == (4 * 6 * 2 * 9, 4 * (results + 2 * 3 * 4 * 8 * 8))


@pytest.mark.parametrize("name", ["swin_digits"])
def test_a_whole_model_counts_as_torch_counts(name, tmp_path):
    model = load_model(name)
    path = export_fp_onnx(model, tmp_path / "model.onnx")
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.zeros(3, 1, 16, 16))
    assert sum(count_work(path, 3).operations.values()) == counter.get_total_flops()


def test_the_floor_is_the_longer_of_arithmetic_and_traffic():
    rates = Rates({FLOAT32: 1e9, INT8: 4e9}, bytes_moved=1e9)
    assert floor_ms(Work({FLOAT32: 10**6, INT8: 4 * 10**6}, 0, 500), rates) == pytest.approx(2)
    assert floor_ms(Work({INT8: 4000}, 2 * 10**6, 10**6), rates) == pytest.approx(3)
    assert floor_ms(Work({"float16": 10**6}, 0, 0), rates) == pytest.approx(1)


def test_what_is_no_model_is_a_user_error(tmp_path):
    (tmp_path / "text.onnx").write_text("not a model")
    with pytest.raises(UserError, match="is not an ONNX model"):
        count_work(tmp_path / "text.onnx", 1)


def test_rates_are_those_of_a_computer():
    """Wide bounds: from a slow board to a large server."""
    operations = measure_operations(threads=1)
    assert set(operations) == {FLOAT32, INT8}
    assert all(1e8 < rate < 1e15 for rate in operations.values())
    assert 1e7 < measure_copies(2**16) < 1e14


def test_peak_memory_is_of_the_child_alone(model_path):
    ballast = np.ones(3 * 10**8, np.uint8)
    found = peak_memory_bytes(model_path, "onnxruntime-cpu", 2, threads=1)
    own = own_peak_bytes()
    if own is not None:
        assert ballast.nbytes < own
        assert found is not None
        assert 10**7 < found < ballast.nbytes


def test_a_file_that_does_not_run_alone_says_why(tmp_path):
    with pytest.raises(RuntimeError, match="no ONNX file"):
        peak_memory_bytes(tmp_path / "none.onnx", "onnxruntime-cpu")
