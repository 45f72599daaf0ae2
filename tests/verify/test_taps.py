"""A copy of a file also outputs what every stage hands to the next, and nothing else in it changes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx.reference import ReferenceEvaluator

from fimaq_deploy.errors import UserError
from fimaq_deploy.verify.taps import Taps, write_with_taps

STAGES = ("embed", "blocks.0", "blocks.1", "head")
GRAPH = """g (float[n, 4] images) => (float[n, 4] logits)
    <float scale = {0.5}, int8 zero = {0}, float two = {2}, int64[2] same = {0, 4}> {
        embedded = Mul (images, two)
        q = QuantizeLinear (embedded, scale, zero)
        d = DequantizeLinear (q, scale, zero)
        first = Add (embedded, d)
        second = Relu (first)
        third = Add (first, second)
        shaped = Reshape (third, same)
        logits = Neg (shaped)
    }"""
NAMES = (
    "embed.scale/Mul",
    "blocks.0.input_quantizer/QuantizeLinear",
    "blocks.0.input_quantizer/DequantizeLinear",
    "blocks.0/Add",
    "blocks.1.act/Relu",
    "blocks.1/Add",
    "norm/Reshape",
    "head/Neg",
)


@pytest.fixture
def file(draw: Callable[[str], ir.Model], tmp_path: Path) -> Path:
    model = draw(GRAPH)
    for node, name in zip(model.graph, NAMES, strict=True):
        node.name = name
    ir.save(model, tmp_path / "model.onnx")
    return tmp_path / "model.onnx"


def numbers(path: Path) -> dict[str, np.ndarray]:
    run = ReferenceEvaluator(onnx.load(path))
    images = np.linspace(-3, 3, 8, dtype=np.float32).reshape(2, 4)
    return dict(zip(run.output_names, run.run(None, {"images": images}), strict=True))


def test_what_a_stage_hands_on_is_found_from_the_names(file: Path, tmp_path: Path) -> None:
    """The residual is read twice inside a block and once behind it; the norm before the head is the head's."""
    before = file.read_bytes()
    taps = write_with_taps(file, STAGES, tmp_path / "copy.onnx", integers=False)
    assert taps == Taps(("embedded", "first", "third"), ("logits",), {})
    assert file.read_bytes() == before
    plain, tapped = numbers(file), numbers(tmp_path / "copy.onnx")
    np.testing.assert_array_equal(tapped["logits"], plain["logits"])
    np.testing.assert_array_equal(tapped["third"], -plain["logits"])
    np.testing.assert_array_equal(tapped["first"], tapped["embedded"] + np.rint(tapped["embedded"] / 0.5) * 0.5)


def test_integers_come_by_the_module_of_their_quantizer(file: Path, tmp_path: Path) -> None:
    taps = write_with_taps(file, STAGES, tmp_path / "copy.onnx", integers=True)
    assert taps.integers == {"blocks.0.input_quantizer": "q"}
    found = numbers(tmp_path / "copy.onnx")
    assert found["q"].dtype == np.int8
    np.testing.assert_array_equal(found["q"], np.rint(found["embedded"] / 0.5))


def test_a_stage_is_not_taken_for_one_whose_name_it_begins(file: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"has no node of stage 'block': name a file that was exported from"):
        write_with_taps(file, ("embed", "block", "head"), tmp_path / "copy.onnx", integers=False)
    model = ir.load(file)
    for node in model.graph:
        node.name = (node.name or "").replace("blocks.0", "blocks.10")
    ir.save(model, file)
    with pytest.raises(UserError, match=r"no node of stage 'blocks\.0'"):
        write_with_taps(file, STAGES, tmp_path / "copy.onnx", integers=False)
    assert not (tmp_path / "copy.onnx").exists()


def test_more_than_one_activation_between_stages_is_a_user_error(file: Path, tmp_path: Path) -> None:
    model = ir.load(file)
    model.graph[5].replace_input_with(0, model.graph[0].outputs[0])
    ir.save(model, file)
    with pytest.raises(UserError, match=r"expected one activation before blocks\.1\.act/Relu, found first, embedded"):
        write_with_taps(file, STAGES, tmp_path / "copy.onnx", integers=False)


def test_sizes_that_are_read_are_no_activation(file: Path, tmp_path: Path) -> None:
    """A Shape of an earlier tensor for the last Reshape: what it depends on is its size alone."""
    model = ir.load(file)
    shape = ir.node("Shape", [model.graph.inputs[0]], name="embed/Shape")
    shape.outputs[0].name = "size"
    model.graph.insert_before(model.graph[0], shape)
    model.graph[7].replace_input_with(1, shape.outputs[0])
    ir.save(model, file)
    assert write_with_taps(file, STAGES, tmp_path / "copy.onnx", integers=False).stages[2] == "third"
