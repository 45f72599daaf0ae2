from __future__ import annotations

from typing import Any

import pytest

from fimaq_deploy.errors import UserError
from fimaq_deploy.verify.block_plan import BlockPlan
from fimaq_deploy.verify.promises import EXPECTED, PROMISES, broken_promises, parse_promises


def block(name: str = "blocks.0", **fields: Any) -> BlockPlan:
    told = {"kernels": 9, "gemms": 4, "int8_gemms": 4, "weight_only_gemms": 0, "attention": "int8"}
    return BlockPlan(**{"name": name, "dequantized_weights": 0, "conversions": 1, **told, **fields})


@pytest.mark.parametrize(
    ("promise", "fields", "said"),
    [
        ("int8-gemms=all", {"float_gemms": ("a", "b", "c", "d")}, "not in INT8: a, b, c and 1 more"),
        ("int8-gemms=all", {"fp8_gemms": 1, "fp4_gemms": 2}, "3 of 4 GEMMs in FP8 or FP4"),
        ("gemms-as-written", {"lost_gemms": ("a",)}, "quantized, but compiled to a floating-point product: a"),
        ("fused-attention", {"attention": "unfused"}, "attention is not fused"),
        ("no-weight-dequant", {"dequantized_weights": 2}, "2 weights dequantized at run time"),
        ("no-more-kernels", {"twin_kernels": 8}, "9 kernels, but 8 in the full-precision twin"),
    ],
)
def test_a_breach_is_a_sentence(promise: str, fields: dict[str, Any], said: str) -> None:
    assert broken_promises([block(**fields)], PROMISES) == (f"blocks.0: {said}",)
    assert broken_promises([block(**fields)], set(PROMISES) - {promise}) == ()


def test_blocks_that_break_a_promise_in_one_way_share_a_sentence() -> None:
    blocks = [block(f"blocks.{n}", attention="unfused") for n in range(5)] + [block("head", attention=None)]
    assert broken_promises(blocks, EXPECTED) == ("blocks.0, blocks.1, blocks.2 and 2 more: attention is not fused",)
    assert broken_promises([block(twin_kernels=9), block("head")], PROMISES) == ()


def test_promises_are_checked_for_spelling() -> None:
    assert parse_promises(" fused-attention, int8-gemms=all,") == ("fused-attention", "int8-gemms=all")
    with pytest.raises(UserError, match=r"unknown promise 'int8-gems'.*int8-gemms=all"):
        parse_promises("int8-gems")
    assert set(parse_promises(",".join(PROMISES))) == set(PROMISES)


@pytest.mark.parametrize("text", ["", ",", " , ", "\t"])
def test_a_list_of_no_promises_is_refused_as_it_would_hold_whatever_came(text: str) -> None:
    with pytest.raises(UserError, match="asks for nothing"):
        parse_promises(text)
