"""Numbers that lie in another file. ONNX Runtime refuses each that is refused here."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from fixtures.sessions import loads
from fixtures.versions import onnxruntime_version, refuses_data_elsewhere
from onnx import helper, numpy_helper

from fimaq_deploy import lint
from fimaq_deploy.graph.rules import Finding

SIZE = 64  # of 4 x 4 floats
MISSING = "is missing or no file"
OUTSIDE = "lies outside the folder of the file"
ABSOLUTE = "is an absolute path"


@pytest.fixture
def keeping(tmp_path: Path) -> Callable[..., Path]:
    """A file whose weights lie at `location`. Beside it are `right.bin`, a short one, a folder and links."""
    folder = tmp_path / "model"
    (folder / "below").mkdir(parents=True)
    for place in (folder / "right.bin", folder / "below" / "deep.bin", tmp_path / "outside.bin"):
        place.write_bytes(np.eye(4, dtype=np.float32).tobytes())
    (folder / "short.bin").write_bytes(bytes(SIZE - 1))
    (folder / "link.bin").symlink_to(tmp_path / "outside.bin")
    (folder / "below" / "link.bin").symlink_to("../../outside.bin")
    (folder / "away").symlink_to(tmp_path)
    (folder / "broken.bin").symlink_to("nothing.bin")
    (folder / "inside.bin").symlink_to("right.bin")

    def write(location: str, **entries: object) -> Path:
        stored = onnx.TensorProto(name="w", data_type=onnx.TensorProto.FLOAT, dims=[4, 4])
        stored.data_location = onnx.TensorProto.EXTERNAL
        for key, value in {"location": location, "offset": 0, "length": SIZE, **entries}.items():
            stored.external_data.add(key=key, value=str(value))
        x, y = (helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["N", 4]) for name in "xy")
        nodes = [helper.make_node("MatMul", ["x", "w"], ["y"], "product")]
        graph = helper.make_graph(nodes, "graph", [x], [y], [stored])
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
        (folder / "model.onnx").write_bytes(model.SerializeToString())
        return folder / "model.onnx"

    return write


def found(path: Path) -> list[Finding]:
    return [finding for finding in lint(path, "onnxruntime-cpu") if finding.rule == "unloadable"]


@pytest.mark.parametrize(
    ("location", "said"),
    [
        ("gone.bin", MISSING),
        ("below/gone.bin", MISSING),
        ("below", MISSING),
        ("broken.bin", MISSING),
        ("../outside.bin", OUTSIDE),
        ("below/../../outside.bin", OUTSIDE),
        ("../gone.bin", OUTSIDE),
        ("link.bin", OUTSIDE),
        ("below/link.bin", OUTSIDE),
        ("away/outside.bin", OUTSIDE),
        ("/etc/hostname", ABSOLUTE),
        ("/gone.bin", ABSOLUTE),
        ("C:\\weights.bin", ABSOLUTE),
        ("short.bin", f"has {SIZE - 1} bytes, {SIZE} are read"),
        ("", "without a location"),
    ],
)
def test_data_that_cannot_be_read_is_an_error(keeping, location, said):
    path = keeping(location)
    (finding,) = found(path)
    assert (finding.severity, finding.tensor) == ("error", "w") and said in finding.problem
    assert not loads(path) or (said == OUTSIDE and onnxruntime_version() < (1, 25))


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        ({"offset": 1}, "65 are read"),
        ({"offset": 2**40}, "are read"),
        ({"offset": -4}, "is negative"),
        ({"length": SIZE - 4}, f"{SIZE - 4} bytes for a tensor of {SIZE}"),
        ({"length": "all"}, "is no number"),
    ],
)
def test_a_place_that_the_file_does_not_have_is_an_error(keeping, entries, said):
    path = keeping("right.bin", **entries)
    (finding,) = found(path)
    assert not loads(path) and said in finding.problem


@refuses_data_elsewhere
def test_an_absolute_path_to_the_right_file_is_an_error(keeping):
    path = keeping("right.bin")
    path = keeping(str(path.parent / "right.bin"))
    assert ABSOLUTE in found(path)[0].problem and not loads(path)


@pytest.mark.parametrize("location", ["right.bin", "./right.bin", "below/deep.bin", "inside.bin"])
def test_data_inside_the_folder_is_none(keeping, location):
    path = keeping(location)
    assert loads(path) and not found(path)


def test_a_model_that_is_a_link_finds_its_data_where_it_really_lies(keeping, tmp_path):
    """As a hub's cache keeps files."""
    real = keeping("data.bin")
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshot"
    blobs.mkdir(), snapshot.mkdir()
    for name, source in (("model.onnx", real), ("data.bin", real.parent / "right.bin")):
        source.rename(blobs / name[0])
        (snapshot / name).symlink_to(blobs / name[0])
    assert loads(snapshot / "model.onnx") and not found(snapshot / "model.onnx")


def test_data_of_a_node_is_looked_at_too(keeping):
    path = keeping("right.bin")
    model = onnx.load(path, load_external_data=False)
    constant = helper.make_node("Constant", [], ["w"], "constant", value=model.graph.initializer.pop())
    model.graph.node.insert(0, constant)
    path.write_bytes(model.SerializeToString())
    assert not found(path)
    (path.parent / "right.bin").unlink()
    assert MISSING in found(path)[0].problem


def test_integers_of_four_bits_take_half_a_byte(keeping):
    path = keeping("right.bin")
    model = onnx.load(path, load_external_data=False)
    stored = model.graph.initializer[0]
    stored.data_type, stored.dims[:] = onnx.TensorProto.INT4, [16, 8]
    scale = numpy_helper.from_array(np.float32(0.5), "s")
    model.graph.initializer.append(scale)
    model.graph.node.insert(0, helper.make_node("DequantizeLinear", ["w", "s"], ["floats"], "floats"))
    model.graph.node[1].input[1] = "floats"
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 16
    path.write_bytes(model.SerializeToString())
    assert not found(path)
    (path.parent / "right.bin").write_bytes(bytes(SIZE - 1))
    assert "63 bytes" in found(path)[0].problem
