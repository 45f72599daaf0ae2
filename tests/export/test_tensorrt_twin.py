"""The FP16 twins compile on TensorRT-RTX, which needs no GPU, into the kernels that they were written for.

Beside them stand the placements that are known not to fuse, so that the audit is seen to notice each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
import torch

from fimaq_deploy.engines.tensorrt import build_engine
from fimaq_deploy.export import export_fp_onnx, export_onnx
from fimaq_deploy.export.passes.guards import guard_split_products
from fimaq_deploy.graph.rules import lint
from fimaq_deploy.graph.structure import read_structure
from fimaq_deploy.target import find_target
from fimaq_deploy.verify.block_plan import BlockPlan, audit_log, kernel_counts
from fimaq_deploy.verify.layer_plan import read_plan
from fimaq_deploy.verify.promises import broken_promises
from fimaq_deploy.verify.stored_weights import differing_weights

pytest.importorskip("tensorrt_rtx")

TARGET = "tensorrt-rtx"
INTEGERS = (ir.DataType.INT4, ir.DataType.INT8, ir.DataType.INT64)
IMAGE_SCALE = "parts.0.quantize.scale.images"
STAGES = {"parts.0": "patch_embed", "parts.1": "blocks.0", "parts.2": "head"}
BLOCK = ("patch_embed", "blocks.0", "head")
OPERANDS = ("blocks.0.operands.0", "blocks.0.operands.1", "blocks.0.operands.2")
SOFTMAX, PROJ = "blocks.0.softmax", "blocks.0.proj.quantize"


def named(path: Path) -> ir.Model:
    """A file of `Tiny`, its nodes named after the stages of a timm model."""
    model = ir.load(path)
    for node in model.graph:
        for part, stage in STAGES.items():
            node.name = node.name.replace(part, stage)
    return model


@pytest.fixture
def twin(exported) -> Callable[[str], ir.Model]:
    """The file of a model of `MODELS` for TensorRT-RTX."""
    return lambda name: named(exported(name, TARGET)[1])


@pytest.fixture
def plan_of(tmp_path: Path) -> Callable[..., dict[str, BlockPlan]]:
    """What a file is compiled to for one compute capability, by block."""

    def compiled(model: ir.Model, capability: tuple[int, int] = (8, 9)) -> dict[str, BlockPlan]:
        path = tmp_path / "model.onnx"
        ir.save(model, path)
        log = build_engine(path, tmp_path / "engine", TARGET, compute_for=[capability], verbose=True).log
        blocks = audit_log(log, read_structure(path))
        assert total(blocks) == sum(kernel.kind != "shape_call" for kernel in read_plan(log))
        return {block.name: block for block in blocks}

    return compiled


def total(blocks: Iterable[BlockPlan]) -> int:
    return sum(block.kernels for block in blocks)


def without_pairs(model: ir.Model, *modules: str) -> ir.Model:
    """Remove the activation quantizers of some modules."""
    for node in model.graph:
        if node.op_type in ("Clip", "QuantizeLinear", "DequantizeLinear") and node.name.split("/")[0] in modules:
            ir.convenience.replace_all_uses_with(node.outputs[0], node.inputs[0])
            model.graph.remove(node, safe=True)
    return model


def with_clip(model: ir.Model, module: str) -> ir.Model:
    """Put a Clip of floats before one quantizer."""
    node = next(node for node in model.graph if node.name == f"{module}/QuantizeLinear")
    bounds = [ir.Value(name=f"bound{low}", const_value=ir.tensor(np.float16(low))) for low in (-1, 1)]
    for bound in bounds:
        bound.dtype, bound.shape = ir.DataType.FLOAT16, ir.Shape([])
        model.graph.register_initializer(bound)
    clip = ir.Node("", "Clip", [node.inputs[0], *bounds], name=f"{module}/Clip")
    node.replace_input_with(0, clip.outputs[0])
    model.graph.insert_before(node, clip)
    return model


def test_eight_bits_run_in_integers_from_end_to_end(twin, plan_of):
    plan = plan_of(twin("w8a8"))
    assert tuple(plan) == BLOCK
    assert [block.gemms for block in plan.values()] == [block.int8_gemms for block in plan.values()] == [1, 2, 1]
    assert [block.attention for block in plan.values()] == [None, "int8", None]
    assert not any(block.dequantized_weights or block.lost_gemms or block.weight_only_gemms for block in plan.values())
    required = ("int8-gemms=all", "fused-attention", "no-weight-dequant")
    assert broken_promises(list(plan.values()), required) == ()


def test_integer_weights_alone_are_decoded_inside_their_products(twin, plan_of):
    block = plan_of(twin("w4a16"))["blocks.0"]
    assert (block.int8_gemms, block.weight_only_gemms, block.dequantized_weights) == (0, 2, 0)
    assert block.attention == "float16" and not block.lost_gemms
    assert broken_promises([block], ["int8-gemms=all"]) and not broken_promises([block], ["gemms-as-written"])


def test_unquantized_operands_throw_qkv_out_of_int8(twin, plan_of):
    plan = plan_of(without_pairs(twin("w8a8"), *OPERANDS, SOFTMAX))
    block = plan["blocks.0"]
    assert (block.attention, block.gemms, block.int8_gemms, block.dequantized_weights) == ("float16", 2, 1, 1)
    assert block.float_gemms == block.lost_gemms == ("blocks.0.qkv/MatMul",)
    assert len(broken_promises(list(plan.values()), ("int8-gemms=all", "no-weight-dequant"))) == 2


def test_half_quantized_attention_is_not_fused(twin, plan_of):
    plan = plan_of(without_pairs(twin("w8a8"), SOFTMAX))
    assert plan["blocks.0"].attention == "unfused"
    assert broken_promises(list(plan.values()), ["fused-attention"]) == ("blocks.0: attention is not fused",)


def test_a_clip_of_floats_before_the_output_projection_breaks_fusion(twin, plan_of):
    before, after = plan_of(twin("w8a8"))["blocks.0"], plan_of(with_clip(twin("w8a8"), PROJ))["blocks.0"]
    assert after.attention == "unfused" and after.kernels > before.kernels


@pytest.mark.parametrize("name", ["w8a8", "w4a16"])
def test_bfloat16_around_the_same_integers_fuses_too(exported, tmp_path, plan_of, name):
    model, half = exported(name, TARGET)
    wide = replace(find_target(TARGET), high_precision="bfloat16")
    path = export_onnx(model, tmp_path / "bf16.onnx", target=wide, input_shape=(3, 8, 8))
    assert differing_weights(path, half) == differing_weights(path, exported(name)[1]) == []
    file = ir.load(path)
    inside = {value for value in file.graph.initializers.values() if value.name.endswith(".float16")}
    stored = {value.dtype for value in set(file.graph.initializers.values()) - inside if value.name != IMAGE_SCALE}
    assert stored <= {*INTEGERS, ir.DataType.BFLOAT16} and bool(inside) is (name == "w8a8")
    (block,) = plan_of(file).values()
    assert block.attention == {"w8a8": "int8", "w4a16": "bfloat16"}[name]
    assert (block.int8_gemms, block.weight_only_gemms) == {"w8a8": (4, 0), "w4a16": (0, 3)}[name]


def test_low_bits_clip_their_integers_and_fuse(twin, plan_of):
    """Below 8 bits a grid is smaller than its container. Clipped as floats, attention is not fused."""
    model = twin("w4a4")
    clips = [node for node in model.graph if node.op_type == "Clip"]
    assert clips and all(clip.inputs[0].producer().op_type == "QuantizeLinear" for clip in clips)
    plan = plan_of(model)
    assert all(block.gemms == block.int8_gemms for block in plan.values())
    assert plan["blocks.0"].attention == "int8"
    assert not any(block.dequantized_weights for block in plan.values())


def test_a_guarded_product_stays_in_integers_before_float_attention(twin, plan_of, tmp_path):
    model = without_pairs(twin("w8a8"), *OPERANDS, SOFTMAX)
    ir.save(model, tmp_path / "bare.onnx")
    assert "qkv-output" in {finding.rule for finding in lint(tmp_path / "bare.onnx", TARGET)}
    guard_split_products(model)
    (guard,) = [node for node in model.graph if node.op_type == "Clip"]
    assert guard.name == "blocks.0.qkv/Clip"
    ir.save(model, tmp_path / "guarded.onnx")
    assert "qkv-output" not in {finding.rule for finding in lint(tmp_path / "guarded.onnx", TARGET)}
    block = plan_of(model)["blocks.0"]
    assert (block.attention, block.int8_gemms, block.gemms, block.dequantized_weights) == ("float16", 2, 2, 0)


def test_only_unquantized_splits_are_guarded(twin):
    for name in ("w8a8", "w4a4"):
        before = len(list(twin(name).graph))
        model = twin(name)
        guard_split_products(model)
        assert len(list(model.graph)) == before


def test_a_norm_before_the_class_token_is_one_kernel_with_what_surrounds_it(every_row, twin, plan_of):
    whole, first_row = plan_of(named(every_row(TARGET))), plan_of(twin("class-token"))
    assert first_row["head"].kernels < whole["head"].kernels
    assert total(first_row.values()) <= total(whole.values())
    assert first_row["blocks.0"].attention == "int8" and not any(block.lost_gemms for block in first_row.values())


def test_patches_as_a_product_run_in_integers_on_turing_too(exported, twin, plan_of, tmp_path):
    convolved = replace(find_target(TARGET), patches="convolution")
    export_onnx(exported("w8a8")[0], tmp_path / "conv.onnx", target=convolved, input_shape=(3, 8, 8))
    files = (named(tmp_path / "conv.onnx"), twin("w8a8"))
    before, after = (plan_of(file, (7, 5))["patch_embed"] for file in files)
    assert (before.int8_gemms, before.dequantized_weights) == (0, 1)
    assert (after.int8_gemms, after.dequantized_weights) == (1, 0)


class FloatAttention(torch.nn.Module):
    """16 tokens of 3 channels, 2 heads of 16."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.qkv, self.proj = (torch.nn.Linear(*sizes) for sizes in ((12, 32), (32, 96), (32, 10)))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x = self.embed(images.reshape(-1, 16, 12))
        q, k, v = self.qkv(x).reshape(-1, 16, 3, 2, 16).permute(2, 0, 3, 1, 4).unbind(0)
        y = (q @ k.transpose(-2, -1) / 4).softmax(-1) @ v
        return self.proj(y.transpose(1, 2).reshape(-1, 16, 32).mean(1))


def test_full_precision_fuses_attention_in_half_precision_only(tmp_path, plan_of):
    found = {}
    for target in (None, TARGET):
        path = export_fp_onnx(FloatAttention().eval(), tmp_path / "fp.onnx", target=target, input_shape=(3, 8, 8))
        (found[target],) = plan_of(ir.load(path)).values()
    assert [plan.attention for plan in found.values()] == ["unfused", "float16"]
    assert all((plan.int8_gemms, plan.gemms, plan.left_alone) == (0, 1, 2) for plan in found.values())
    assert all(len(plan.float_gemms) == 1 for plan in found.values())
    assert not any(plan.lost_gemms for plan in found.values()), "nothing was promised to run in integers"
    assert kernel_counts([found[TARGET]]) == {"model": found[TARGET].kernels}
