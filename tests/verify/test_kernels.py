"""Kernels as TensorRT-RTX 1.7.1 names them, and what is made of them."""

from __future__ import annotations

import pytest

from fimaq_deploy.verify.kernels import (
    dequantized_weights,
    is_attention,
    is_conversion,
    is_matrix_kernel,
    multiplied_type,
    read_types,
    stored_in_few_bits,
)
from fimaq_deploy.verify.layer_plan import Kernel, PlanTensor


def kernel(name: str, kind: str, reads: str, stored: str | None = None) -> Kernel:
    constants = () if stored is None else (PlanTensor("w", (384, 1152), stored), PlanTensor("scale", (1,), "Float"))
    return Kernel(name, kind, (PlanTensor("x", (-1, 384), reads),), constants, (), ())


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        (kernel("blocks.0.attn.qkv/MatMul_myl0_4", "gemm", "FP8", "FP8"), "fp8"),
        (kernel("blocks.0.attn.qkv/MatMul_myl0_4", "gemm", "Int8", "Int8"), "int8"),
        (kernel("blocks.0.attn.qkv/MatMul_myl0_4", "gemm", "FP4", "FP4"), "fp4"),
        (kernel("blocks.0.attn.qkv/MatMul_myl0_4", "gemm", "Half", "FP8"), None),
        (kernel("blocks.0.attn.qkv/MatMul_myl0_4", "gemm", "Int8", "FP8"), None),
        (kernel("__myl_CastMulFc_myl0_3", "kgen", "FP8", "FP8"), None),
        (kernel("__myl_FcAddCast_myl0_3", "kgen", "FP8", "FP8"), "fp8"),
        (Kernel("__myl_Fc_myl0_3", "kgen", (), (PlanTensor("w", (4, 4), "FP8"),), (), ()), None),
    ],
)
def test_a_product_has_the_type_that_it_reads_on_both_sides(made: Kernel, expected: str | None) -> None:
    assert multiplied_type(made) == expected and is_matrix_kernel(made)


@pytest.mark.parametrize("stored", ["FP8", "FP4", "Int8", "Int4"])
def test_a_weight_is_dequantized_where_what_reads_it_multiplies_nothing(stored: str) -> None:
    cast, product = (kernel(name, "kgen", "Half", stored) for name in ("__myl_CastMul_myl0_1", "__myl_CastFc_myl0_1"))
    assert (dequantized_weights(cast), dequantized_weights(product)) == (1, 0)
    assert stored_in_few_bits(cast) == stored_in_few_bits(product) == 1
    assert dequantized_weights(kernel("__myl_CastMul_myl0_1", "kgen", "Half", "Half")) == 0


def test_attention_and_conversions_are_told_by_their_names() -> None:
    attention = kernel("_gemm_mha_v2_myl0_7", "kgen", "FP8")
    assert is_attention(attention) and is_matrix_kernel(attention)
    assert list(read_types([attention, kernel("_gemm_mha_v2", "kgen", "Half")])) == ["float8", "float16"]
    assert is_conversion(kernel("__myl_MoveReplConc_myl0_6", "kgen", "FP8"))
    assert not is_conversion(kernel("__myl_TranMul_myl0_6", "kgen", "FP8"))


def test_a_mask_that_attention_adds_does_not_make_it_one_of_floats() -> None:
    mask, operand = PlanTensor("mask", (-1, 1, 16, 16), "Half"), PlanTensor("q", (-1, 16, 16), "Int8")
    assert list(read_types([Kernel("_gemm_mha_v2_myl0_23", "kgen", (mask, *[operand] * 3), (), (), ())])) == ["int8"]
