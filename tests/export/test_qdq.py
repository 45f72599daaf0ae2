"""Real exports, real ONNX Runtime sessions: what PyTorch computed is what the file computes."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from fixtures.exported import SHAPE
from fixtures.grids import check_grids
from fixtures.versions import onnxruntime_version, quantizes_float16_exactly

from fimaq_deploy.calibration.quantization import quantize
from fimaq_deploy.calibration.quantizers.layers import quantized_layers
from fimaq_deploy.engines import load_engine
from fimaq_deploy.engines.onnxruntime import optimised_operators
from fimaq_deploy.errors import UserError
from fimaq_deploy.export import export_fp_onnx, export_onnx, trace
from fimaq_deploy.graph.inspection import integer_weights
from fimaq_deploy.graph.structure import read_structure
from fimaq_deploy.models.bundled import BUNDLED
from fimaq_deploy.recipe import Recipe
from fimaq_deploy.verify.stored_weights import differing_weights

# Between fake-quant and the file with optimisations off: float sums in another order.
EXACT = 1e-5
NAMES = ("w8a8", "w4a4", "offset", "unsigned", "w4a16")


def operators(path: Path) -> Counter[str]:
    return Counter(node.op_type for node in onnx.load(path).graph.node)


def run(path: Path, images: torch.Tensor, optimisations: bool = False) -> np.ndarray:
    return load_engine(path, optimisations=optimisations, threads=1)(images.numpy())


@pytest.mark.parametrize("name", NAMES)
def test_fake_quant_is_what_the_file_computes(exported, images, name):
    model, path = exported(name)
    with torch.no_grad():
        expected = model(images).numpy()
    np.testing.assert_allclose(run(path, images), expected, atol=EXACT)
    assert np.mean(run(path, images, True).argmax(1) == expected.argmax(1)) == 1
    if name == "w4a16":  # by default ONNX Runtime would quantize the activations of MatMulNBits on the way
        np.testing.assert_allclose(run(path, images, True), expected, atol=EXACT)


@pytest.mark.parametrize("name", NAMES)
def test_the_file_is_standard_onnx_with_float32_on_both_ends(exported, name):
    for target in (None, "tensorrt-rtx"):
        if name == "unsigned" and target:
            continue
        model = onnx.load(exported(name, target)[1])
        onnx.checker.check_model(model, full_check=True)
        assert [(o.domain, o.version) for o in model.opset_import] == [("", 21)]
        ((images,), (logits,)) = model.graph.input, model.graph.output
        assert (images.name, logits.name) == ("images", "logits")
        assert {v.type.tensor_type.elem_type for v in (images, logits)} == {onnx.TensorProto.FLOAT}
        assert images.type.tensor_type.shape.dim[0].dim_param
        assert not any(node.metadata_props or node.doc_string for node in model.graph.node)


@pytest.mark.parametrize("batch", [1, 5])
def test_the_batch_is_dynamic(exported, images, batch):
    assert run(exported("w8a8")[1], images[:batch]).shape == (batch, 10)


@pytest.mark.parametrize(
    ("name", "bits", "container"),
    [("w8a8", 8, "INT8"), ("w4a4", 4, "INT4"), ("offset", 3, "INT4"), ("w4a16", 4, "INT4")],
)
def test_weights_stay_integers_within_their_bits(exported, name, bits, container):
    model, path = exported(name)
    weights = [tensor for tensor in check_grids(path) if tensor.kind == "weight"]
    inner = weights[1:-1]
    assert len(weights) == 4 and all(tensor.zero_point == 0 for tensor in weights)
    assert {tensor.dtype for tensor in inner} == {container}
    assert min(tensor.low for tensor in inner) >= -(2 ** (bits - 1))
    assert max(tensor.high for tensor in inner) <= 2 ** (bits - 1) - 1
    stored = integer_weights(path)
    assert np.array_equal(stored["parts.1.qkv.q"], model.parts[1].qkv.q.numpy())


@pytest.mark.parametrize(("name", "low", "high"), [("w8a8", -128, 127), ("w4a4", -8, 7), ("offset", -5, 10)])
def test_activations_keep_their_range_and_zero_point_0(exported, name, low, high):
    activations = [tensor for tensor in check_grids(exported(name)[1]) if tensor.kind == "activation"]
    inner = [tensor for tensor in activations[1:-1] if "softmax" not in tensor.node]
    assert {(t.dtype, t.zero_point, t.low, t.high) for t in inner} == {("INT8", 0, low, high)}


def test_unsigned_activations_keep_their_zero_point(exported):
    tensor = next(t for t in check_grids(exported("unsigned")[1]) if "qkv" in t.node and t.kind == "activation")
    assert (tensor.dtype, tensor.zero_point, tensor.low, tensor.high) == ("UINT8", 131, 0, 255)


def test_every_quantized_tensor_has_a_grid_in_order(exported):
    nodes = [tensor.node.split("/")[0] for tensor in check_grids(exported("w8a8")[1])]
    assert set(nodes[:4]) == {"parts.0.quantize", "parts.0", "parts.1.qkv.quantize", "parts.1.qkv"}
    assert len(nodes) == len(set(nodes)) == 12


def test_clips_stand_only_where_the_container_does_not_saturate_alone(exported):
    assert operators(exported("w8a8")[1])["Clip"] == 0
    clipped = [tensor.node for tensor in check_grids(exported("w4a4")[1]) if tensor.clipped]
    assert len(clipped) == 5 and not any("softmax" in node for node in clipped)


def test_a_softmax_that_its_grid_does_not_cover_is_clipped(tmp_path, images):
    class Narrow(torch.nn.Module):
        def forward(self, x):
            return torch.ops.fimaq.quantize_dequantize(x.flatten(1).softmax(-1), torch.tensor(1 / 64), 0, 0, 15)

    path = export_onnx(Narrow().eval(), tmp_path / "narrow.onnx", input_shape=(3, 8, 8))
    (tensor,) = check_grids(path)
    assert (tensor.clipped, tensor.low, tensor.high) == (True, 0, 15)
    np.testing.assert_allclose(run(path, images * 9), Narrow()(images * 9).numpy(), atol=1e-7)


@pytest.mark.parametrize("name", ["w8a8", "w4a4", "w4a16"])
def test_the_float16_twin_has_the_same_integers_and_no_float32_inside(exported, images, name):
    model, path = exported(name, "tensorrt")
    assert differing_weights(path, exported(name)[1]) == []
    wide = [one.name for one in onnx.load(path).graph.initializer if one.data_type == onnx.TensorProto.FLOAT]
    assert wide == ([] if name == "w4a16" else ["parts.0.quantize.scale.images"])
    assert operators(path)["Cast"] == 2 - len(wide), "images that are quantized are not cast"
    with torch.no_grad():
        expected = model(images).numpy()
    assert np.corrcoef(run(path, images).ravel(), expected.ravel())[0, 1] > 0.98


@quantizes_float16_exactly
@pytest.mark.parametrize("name", ["w4a4", "offset"])
def test_clipping_integers_changes_no_number(exported, images, name):
    """The clip stands before QuantizeLinear for TensorRT and behind it for TensorRT-RTX."""
    floats, integers = exported(name, "tensorrt")[1], exported(name, "tensorrt-rtx")[1]
    assert _before(floats, "Clip") != _before(integers, "Clip") == {"QuantizeLinear"}
    both = [{(t.node, t.low, t.high, t.clipped) for t in check_grids(path)} for path in (floats, integers)]
    assert both[0] == both[1]
    for scaled in (images, images * 50):
        np.testing.assert_array_equal(run(floats, scaled), run(integers, scaled))


def _before(path: Path, kind: str) -> set[str]:
    """The operators whose results operators of a kind read first."""
    nodes = onnx.load(path).graph.node
    makers = {output: node.op_type for node in nodes for output in node.output}
    return {makers[node.input[0]] for node in nodes if node.op_type == kind}


def test_the_guard_of_a_split_product_changes_no_number(exported, images, tmp_path):
    _, path = exported("w4a16", "tensorrt")
    assert operators(path)["Clip"] == 1, "weight-only: attention is in floats"
    model = ir.load(path)
    clip = next(node for node in model.graph if node.op_type == "Clip")
    ir.convenience.replace_all_uses_with(clip.outputs[0], clip.inputs[0])
    model.graph.remove(clip, safe=True)
    ir.save(model, tmp_path / "bare.onnx")
    np.testing.assert_array_equal(run(path, images), run(tmp_path / "bare.onnx", images))


def test_transposes_stand_where_each_runtime_fuses(exported):
    assert "Transpose" not in _consumers_of_dequantized(exported("w8a8")[1])
    assert "Transpose" in _consumers_of_dequantized(exported("w8a8", "tensorrt")[1])


def _consumers_of_dequantized(path: Path) -> set[str]:
    nodes = onnx.load(path).graph.node
    values = {node.output[0] for node in nodes if node.op_type == "DequantizeLinear"}
    return {node.op_type for node in nodes if values.intersection(node.input)}


def test_block_weights_become_integer_kernels_in_onnxruntime(exported):
    # Two in blocks, and the head, whose INT8 weights have a scale per channel and no quantized input either.
    kernels = 3 if onnxruntime_version() >= (1, 25) else 2
    assert optimised_operators(exported("w4a16")[1])["MatMulNBits"] == kernels


@pytest.mark.parametrize(("name", "products"), [("w8a8", 6), ("offset", 6), ("unsigned", 6)])
def test_every_quantized_product_becomes_an_integer_kernel_in_onnxruntime(exported, name, products):
    # Patches, qkv, q kᵀ, weights v, proj and head.
    found = optimised_operators(exported(name)[1])
    assert found["MatMulIntegerToFloat"] + found["QLinearMatMul"] == products
    assert not set(found) & {"MatMul", "FusedMatMul", "Gemm", "Conv", "DequantizeLinear"}


def test_the_patch_embedding_is_a_product_but_for_tensorrt_10_and_11(exported):
    assert [operators(exported("w8a8", name)[1])["Conv"] for name in (None, "tensorrt-rtx", "tensorrt")] == [0, 0, 1]


def test_a_convolution_whose_windows_overlap_stays_one(tmp_path, images):
    class Overlapping(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("q", torch.randint(-128, 128, (4, 3, 3, 3), dtype=torch.int8))
            self.register_buffer("scale", torch.rand(4).half().float() / 64)

        def forward(self, x):
            x = torch.ops.fimaq.quantize_dequantize(x, torch.tensor(1 / 32), 0, -128, 127)
            weight = torch.ops.fimaq.dequantize_weight(self.q, self.scale, 0)
            return torch.nn.functional.conv2d(x, weight, stride=1).flatten(1)

    model = Overlapping().eval()
    path = export_onnx(model, tmp_path / "overlapping.onnx", input_shape=(3, 8, 8))
    assert operators(path)["Conv"] == 1
    np.testing.assert_allclose(run(path, images), model(images).numpy(), atol=EXACT)


@pytest.mark.parametrize("name", ["vit_digits", "swin_digits"])
def test_a_w8a8_model_for_onnxruntime_keeps_no_linear_layer_in_floats(tmp_path, name):
    images = torch.rand(16, 1, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    whole = {"quantize": "always"}
    recipe = Recipe.load("w8a8").replace(reconstruction={"iterations": 0}, head=whole, patch_embed=whole)
    quantized = quantize(BUNDLED[name].create().eval(), images, recipe, "onnxruntime-cpu")
    found = optimised_operators(export_onnx(quantized, tmp_path / "model.onnx"))
    layers, blocks = len(list(quantized_layers(quantized))), found["Softmax"]
    assert found["MatMulIntegerToFloat"] == layers
    assert found["MatMul"] + found["FusedMatMul"] == 2 * blocks, "the float matmuls inside attention"
    assert not set(found) & {"Gemm", "Conv", "DequantizeLinear"}


def test_nodes_are_named_after_their_modules(exported):
    names = {node.name for node in onnx.load(exported("w8a8")[1]).graph.node}
    assert {"parts.1.qkv/MatMul", "parts.1.norm/LayerNormalization", "parts.0/MatMul"} <= names


def test_an_export_leaves_the_module_as_it_was(exported):
    model, _ = exported("w8a8", "tensorrt")
    assert {p.dtype for p in model.parameters()} == {torch.float32}


def test_the_same_model_gives_the_same_bytes(exported, tmp_path):
    model, path = exported("w8a8")
    assert export_onnx(model, tmp_path / "again.onnx", input_shape=(3, 8, 8)).read_bytes() == path.read_bytes()


def test_exporting_prints_nothing(tmp_path, capfd):
    export_fp_onnx(torch.nn.Flatten().eval(), tmp_path / "flat.onnx", input_shape=(1, 2, 2))
    assert capfd.readouterr() == ("", "")


def test_a_place_that_cannot_be_written_is_a_user_error(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot write"):
        export_fp_onnx(torch.nn.Flatten().eval(), tmp_path / "file" / "flat.onnx", input_shape=(1, 2, 2))


def test_the_float_swin_folds_its_bias_and_mask(tmp_path):
    torch.manual_seed(0)
    model = BUNDLED["swin_digits"].create().eval()
    path = export_fp_onnx(model, tmp_path / "model.fp32.onnx")
    batch = torch.randn(3, 1, 16, 16)
    with torch.no_grad():
        np.testing.assert_allclose(run(path, batch), model(batch).numpy(), atol=EXACT)
    assert not {"Gather", "GatherND", "Shape", "Pad", "Identity"} & set(operators(path))


@pytest.mark.parametrize("name", ["vit_digits", "swin_digits"])
def test_a_calibrated_model_is_what_the_file_computes(tmp_path, name):
    images = torch.rand(16, 1, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    recipe = Recipe.load("w4a4").replace(reconstruction={"iterations": 0})
    quantized = quantize(BUNDLED[name].create().eval(), images, recipe, "tensorrt-rtx")
    path = export_onnx(quantized, tmp_path / "model.onnx")
    with torch.no_grad():
        difference = np.abs(run(path, images) - quantized(images).numpy()).max(1)
    # Both sum in another order, so once in a while a value next to a rounding boundary falls to the other side of it:
    # one step of one 4-bit value on one image, while all other images are equal.
    assert (difference <= EXACT).mean() >= 0.9
    assert difference.max() < 0.01
    assert operators(path)["QuantizeLinear"] == len([t for t in check_grids(path) if t.kind == "activation"])


@pytest.mark.parametrize("name", ["w4a4", "offset"])
def test_weights_of_few_bits_take_half_a_byte_and_stay_integer_kernels(exported, images, tmp_path, name):
    model, small = exported(name)
    large = trace(model, SHAPE).write(tmp_path / "int8.onnx", weight_storage="int8")
    narrow = [one for one in check_grids(small) if one.dtype == "INT4"]
    assert len(narrow) == 2 and all(one.low >= -8 and one.high <= 7 for one in narrow), "qkv and proj, not the edges"
    bytes_of = [integers.size for integers in integer_weights(small).values()]
    assert large.stat().st_size - small.stat().st_size > 0.4 * sum(sorted(bytes_of)[-2:])
    assert {key: one.tolist() for key, one in integer_weights(small).items()} == {
        key: one.tolist() for key, one in integer_weights(large).items()
    }
    for optimised in (False, True):
        answers = [run(path, images, optimised) for path in (small, large)]
        np.testing.assert_array_equal(*answers)
    assert optimised_operators(small) == optimised_operators(large)
    assert read_structure(small).products[1].weight.stored.dtype is ir.DataType.INT4


def test_an_opset_before_int4_stores_bytes_and_says_so_where_more_was_asked(exported, tmp_path):
    traced = trace(exported("w4a4")[0], SHAPE)
    assert {one.dtype for one in check_grids(traced.write(tmp_path / "a.onnx", opset=19))} == {"INT8"}
    with pytest.raises(UserError, match=r"^--weight-storage int4 with --opset 19: INT4 came with opset 21"):
        traced.write(tmp_path / "b.onnx", opset=19, weight_storage="int4")
    with pytest.raises(UserError, match=r"^--weight-storage int2: expected one of auto, int8, int4$"):
        traced.write(tmp_path / "c.onnx", weight_storage="int2")
