"""Files of another float type, all from one trace in float32."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx_ir as ir
import pytest
import torch
from fixtures.versions import quantizes_float16_exactly

from fimaq_deploy.engines import load_engine
from fimaq_deploy.errors import UserError
from fimaq_deploy.export import convert_fp_onnx, export_fp_onnx, trace
from fimaq_deploy.export.passes.precision import to_float16
from fimaq_deploy.graph.rules import lint
from fimaq_deploy.target import find_target
from fimaq_deploy.verify.taps import write_with_taps

RTX, SHAPE = "tensorrt-rtx", (3, 8, 8)
HALF = ir.DataType.FLOAT16


def wide(name: str):
    return replace(find_target(name), high_precision="bfloat16")


def test_what_was_written_before_changes_no_file(exported, tmp_path):
    model, alone = exported("w4a4", RTX)
    graph = trace(model, SHAPE)
    targets = [None, "tensorrt", wide(RTX), RTX, "tensorrt", None]
    before, *_, after = [graph.write(tmp_path / f"{n}.onnx", target) for n, target in enumerate(targets)]
    assert before.read_bytes() == after.read_bytes() == exported("w4a4")[1].read_bytes()
    assert (tmp_path / "1.onnx").read_bytes() == (tmp_path / "4.onnx").read_bytes()
    assert (tmp_path / "3.onnx").read_bytes() == alone.read_bytes()


@quantizes_float16_exactly
@pytest.mark.parametrize("name", ["w8a8", "w4a4", "w4a16"])
def test_the_twin_computes_in_float16_what_the_model_does(exported, images, name):
    """Sums of float16 differ in their last bits, and a step may flip with them: the logits are about 1."""
    model, path = exported(name, RTX)
    assert not [finding for finding in lint(path, RTX) if finding.rule != "pooled-head"]
    with torch.no_grad():
        found = load_engine(path, optimisations=False, threads=1)(images.numpy())
        np.testing.assert_allclose(found, model(images), atol=0.05)
    graph = ir.load(path).graph
    floats = {v.dtype for node in graph for v in node.outputs if v.dtype and v.dtype.is_floating_point()}
    assert floats == {HALF, ir.DataType.FLOAT}, "float32 are the logits, and the images where nothing quantizes them"


def test_no_pixel_is_rounded_before_it_becomes_an_integer(exported, tmp_path):
    model, path = exported("w8a8", RTX)
    scale = float(model.parts[0].quantize.scale)
    steps = torch.arange(3 * 64, dtype=torch.float32).reshape(1, *SHAPE) % 100 + 0.5
    images = torch.nextafter(steps * scale, torch.tensor(torch.inf))
    assert not torch.equal(images.half().float(), images), "float16 would move them on the edge between two integers"
    taps = write_with_taps(path, [stage.name for stage in model.stages], tmp_path / "taps.onnx", integers=True)
    found = load_engine(tmp_path / "taps.onnx", optimisations=False, threads=1).outputs(images.numpy())
    integers = found[taps.integers["parts.0.quantize"]]
    assert np.array_equal(np.sort(integers.ravel()), np.sort((steps + 0.5).to(torch.int8).numpy().ravel()))


class Masked(torch.nn.Module):
    """Two rows of masks with numbers that float16 does not hold, too large and too small."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer(
            "mask", torch.tensor([[torch.finfo(torch.float32).min] * 4, [-torch.inf, -100.0, 0, 1e-9]])
        )
        self.norm = torch.nn.LayerNorm(4, eps=1e-12)

    def forward(self, images):
        return self.norm((images.flatten(1)[:, None, :4] + self.mask).softmax(-1)).flatten(1)


def test_a_mask_beyond_the_type_is_its_largest_number_and_not_infinity(tmp_path, images):
    path = export_fp_onnx(Masked().eval(), tmp_path / "masked.onnx", target=RTX, input_shape=SHAPE)
    graph = ir.load(path).graph
    mask = graph.initializers["mask"].const_value.numpy()
    assert mask.dtype == np.float16
    assert np.array_equal(mask, np.array([[-65504] * 4, [-np.inf, -100, 0, 0]], np.float16))
    (norm,) = [node for node in graph if node.op_type == "LayerNormalization"]
    assert norm.attributes.get_float("epsilon") == pytest.approx(1e-12), "added in float32"
    assert np.isfinite(load_engine(path, threads=1)(images.numpy())).all()


def test_a_full_precision_file_is_converted_without_its_model(tmp_path):
    model = Masked().eval()
    source = export_fp_onnx(model, tmp_path / "fp32.onnx", input_shape=SHAPE)
    for target in (RTX, wide(RTX)):
        converted = convert_fp_onnx(source, tmp_path / "converted.onnx", target=target)
        traced = export_fp_onnx(model, tmp_path / "traced.onnx", target=target, input_shape=SHAPE)
        assert converted.read_bytes() == traced.read_bytes()


def test_a_file_that_is_not_there_cannot_be_converted(tmp_path):
    with pytest.raises(UserError, match="no ONNX file"):
        convert_fp_onnx(tmp_path / "absent.onnx", tmp_path / "out.onnx", target=RTX)


def test_types_that_operators_name_follow():
    """A Cast, a tensor attribute, images that a Clip stands before, and images that are read twice."""
    model = ir.from_onnx_text(
        """<ir_version: 10, opset_import: ["" : 21]>
        g (float[n, 4] images) => (float[n, 4] logits)
        <float scale = {0.5}, float low = {-1.0}, float high = {1.0}, int8 zero = {0}, int64[2] size = {1, 4}> {
            clipped = Clip (images, low, high)
            q = QuantizeLinear (clipped, scale, zero)
            x = DequantizeLinear (q, scale, zero)
            positive = Greater (images, low)
            kept = Cast <to = 1> (positive)
            filled = ConstantOfShape <value = float[1] {2.0}> (size)
            y = Mul (x, kept)
            logits = Add (y, filled)
        }"""
    )
    to_float16(model)
    inferred = ir.passes.common.ShapeInferencePass(check_type=True, strict_mode=True)(model).model
    types = {v.name: v.dtype for node in inferred.graph for v in node.outputs}
    assert types == {
        "images/Cast": HALF,
        "clipped": ir.DataType.FLOAT,
        "q": ir.DataType.INT8,
        "x": HALF,
        "positive": ir.DataType.BOOL,
        "kept": HALF,
        "filled": HALF,
        "y": HALF,
        "logits_before_cast": HALF,
        "logits": ir.DataType.FLOAT,
    }
    assert {name for name, value in inferred.graph.initializers.items() if value.dtype is ir.DataType.FLOAT} == {
        "scale.images",
        "low.images",
        "high.images",
    }


@pytest.mark.parametrize("text", ["y = Relu (x)", "a = Relu (x) y = Identity (a)", "y = Identity (x)"])
def test_the_same_numbers_between_float32_ends(draw, text, noise):
    model = draw(f"g (float[n, 4] x) => (float[n, 4] y) {{ {text} }}")
    assert to_float16(model)
    assert [value.dtype for value in (*model.graph.inputs, *model.graph.outputs)] == [ir.DataType.FLOAT] * 2
    assert model.graph[0].op_type == model.graph[-1].op_type == "Cast"


def test_several_outputs_are_float32_each_and_integers_stay(draw):
    text = """g (float[n, 4] x) => (float[n, 4] y, float[n, 4] z, int64[n, 1] best) {
        y = Relu (x)
        z = Neg (y)
        best = ArgMax <axis = 1> (z)
    }"""
    model = draw(text)
    to_float16(model)
    assert {value.name: value.dtype for value in model.graph.outputs} == {
        "y": ir.DataType.FLOAT,
        "z": ir.DataType.FLOAT,
        "best": ir.DataType.INT64,
    }
    assert model.graph.outputs[2].producer().inputs[0].dtype is HALF
