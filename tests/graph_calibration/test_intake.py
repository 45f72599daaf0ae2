from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from fixtures.bare_onnx import SIDE, write_bare
from onnx import TensorProto, helper, numpy_helper

from fimaq_deploy.engines.onnxruntime import open_session
from fimaq_deploy.errors import UserError
from fimaq_deploy.graph.edit import nodes_of
from fimaq_deploy.graph.saving import write_model
from fimaq_deploy.graph_calibration.given import Given
from fimaq_deploy.graph_calibration.intake import Network, read_network


def run(network: Network, path: Path, images: np.ndarray) -> np.ndarray:
    write_model(network.model, path)
    (result,) = open_session(path).run(None, {"images": images})
    return result


@pytest.mark.parametrize(
    ("settings", "tolerance"),
    [({}, 1e-5), ({"batch": 2}, 1e-5), ({"opset": 19}, 1e-5), ({"opset": 23}, 1e-5), ({"half": True}, 2e-2)],
)
def test_a_clean_graph_computes_what_the_file_does_in_any_batch(
    settings: dict, tolerance: float, bare_images: np.ndarray, tmp_path: Path
) -> None:
    network = read_network(write_bare(tmp_path / "own.onnx", **settings))
    wanted = Given(network)(bare_images)["scores"]
    found = run(network, tmp_path / "clean.onnx", bare_images)
    assert found.dtype == np.float32 and np.abs(found - wanted).max() < tolerance
    assert network.graph.opset_imports[""] == 21 and network.shape == (3, SIDE, SIDE)


def test_what_was_done_to_a_file_is_said(tmp_path: Path) -> None:
    notes = " ".join(read_network(write_bare(tmp_path / "own.onnx", batch=2, half=True)).notes)
    assert all(word in notes for word in ("from opset 17 to 21", "half precision", "batches of 2 alone"))


def test_numbers_that_lie_beside_the_file_are_read(bare_onnx: Path, bare_images: np.ndarray, tmp_path: Path) -> None:
    onnx.save(
        onnx.load(bare_onnx), tmp_path / "own.onnx", save_as_external_data=True, location="numbers", size_threshold=1024
    )
    network = read_network(tmp_path / "own.onnx")
    own = Given(network)(bare_images)["scores"]
    assert np.abs(run(network, tmp_path / "clean.onnx", bare_images) - own).max() < 1e-5


def test_free_sides_are_asked_for(tmp_path: Path) -> None:
    def free(model: onnx.ModelProto) -> None:
        for axis in (2, 3):
            model.graph.input[0].type.tensor_type.shape.dim[axis].dim_param = f"side_{axis}"

    path = write_bare(tmp_path / "own.onnx", change=free)
    with pytest.raises(UserError, match="does not say their size: give --image-size"):
        read_network(path)
    assert read_network(path, (SIDE, SIDE)).shape == (3, SIDE, SIDE)


def test_a_size_that_a_file_does_not_take_is_refused(bare_onnx: Path) -> None:
    with pytest.raises(UserError, match=r"--image-size: .*cannot be changed"):
        read_network(bare_onnx, (32, 32))


def test_the_weights_of_every_product_are_matrices(bare_onnx: Path) -> None:
    graph = read_network(bare_onnx).graph
    assert not nodes_of(graph, "Gemm")
    assert len(nodes_of(graph, "MatMul")) == 9


def _second_input(model: onnx.ModelProto) -> None:
    model.graph.input.append(helper.make_tensor_value_info("mask", TensorProto.FLOAT, [1]))


def _pixels(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.UINT8


def _nan(model: onnx.ModelProto) -> None:
    stored = next(one for one in model.graph.initializer if one.name == "head.weight")
    array = numpy_helper.to_array(stored).copy()
    array[0, 0] = np.nan
    stored.CopyFrom(numpy_helper.from_array(array, stored.name))


def _quantized(model: onnx.ModelProto) -> None:
    model.graph.initializer.append(numpy_helper.from_array(np.float32(0.1), "step"))
    model.graph.node.append(helper.make_node("QuantizeLinear", ["scores", "step"], ["integers"], "round"))


def _branch(model: onnx.ModelProto) -> None:
    made = helper.make_tensor_value_info("kept", TensorProto.FLOAT, None)
    inside = helper.make_graph([helper.make_node("Identity", ["scores"], ["kept"])], "then", [], [made])
    model.graph.node.extend(
        [
            helper.make_node("ReduceSum", ["scores"], ["sum"], keepdims=0),
            helper.make_node("Cast", ["sum"], ["told"], to=TensorProto.BOOL),
            helper.make_node("If", ["told"], ["chosen"], "choose", then_branch=inside, else_branch=inside),
        ]
    )
    model.graph.output[0].name = "chosen"


def _foreign(model: onnx.ModelProto) -> None:
    model.graph.node.append(helper.make_node("Gelu", ["scores"], ["chosen"], "act", domain="com.microsoft"))
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    model.graph.output[0].name = "chosen"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_second_input, r"takes 2 inputs \(pixels, mask\): expected one, of images"),
        (_pixels, "reads UINT8: expected float32 or float16 images"),
        (_nan, "1 of 640 numbers of head.weight.* are NaN"),
        (_quantized, "is quantized already \\(QuantizeLinear 'round'\\)"),
        (_branch, r"branches \(If 'choose'\)"),
        (_foreign, r"operators of the domain com.microsoft \(Gelu\)"),
    ],
)
def test_what_cannot_be_quantized_is_refused_in_a_line(change, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message) as told:
        read_network(write_bare(tmp_path / "own.onnx", change=change))
    assert "\n" not in str(told.value)
