from __future__ import annotations

from dataclasses import replace

import pytest

from fimaq_deploy.target.kernels import PRODUCTS, Kernel, Shapes, layout_in_words

INT8 = Kernel("int", "layer", frozenset({"channel"}), zero_points="free", packed=(("int4", "folded"),), least_size=16)


def test_two_targets_execute_what_both_do() -> None:
    other = replace(
        INT8,
        weights=frozenset({"channel", "tensor"}),
        zero_points="costly",
        packed=(("int4", "unpacked"),),
        least_size=1,
        pooled=False,
        since=(8, 0),
    )
    both = INT8.both(other)
    assert both == other.both(INT8)
    assert both.weights == {"channel"} and both.zero_points == "costly" and both.packed == (("int4", "unpacked"),)
    assert both.least_size == 16 and not both.pooled and both.since == (8, 0)
    assert INT8.both(replace(INT8, packed=())).packed == ()
    assert INT8.both(INT8) == INT8


def test_attention_fuses_where_both_have_it_and_is_faster_where_one_is() -> None:
    any_shape = Kernel("int", "attention", faster=False)
    fused = Kernel("int", "attention", shapes=Shapes(frozenset({16, 32}), 512, 2, least_softmax_bits=8))
    both = any_shape.both(fused)
    assert both.shapes == fused.shapes and both.faster
    assert fused.shapes.both(Shapes(frozenset({32, 64}), 100)) == Shapes(frozenset({32}), 100, 2, 8)


@pytest.mark.parametrize(
    ("size", "tokens", "said"),
    [
        (16, 2, None),
        (None, 512, None),
        (24, 50, "head size 24 is not one of [16, 32]"),
        (16, 513, "513 tokens are more than 512"),
        (16, 1, "1 tokens are fewer than the 2 of INT8 attention"),
    ],
)
def test_the_rule_that_a_shape_breaks(size: int | None, tokens: int, said: str | None) -> None:
    assert Kernel("int", "attention", shapes=Shapes(frozenset({16, 32}), 512, 2)).broken_rule(size, tokens) == said


def test_a_kernel_is_known_on_gpus_from_its_own_on() -> None:
    new = replace(INT8, since=(8, 9))
    assert new.runs_on((8, 9)) and new.runs_on((12, 0)) and not new.runs_on((8, 6)) and new.runs_on(None)
    assert INT8.runs_on((5, 0))
    assert new.told.endswith("on GPUs of compute capability 8.9 or newer")


def test_layouts_in_words() -> None:
    assert layout_in_words(frozenset({"tensor", "channel"})) == "channel or tensor"
    assert layout_in_words(frozenset({64, 128})) == "blocks of 64, 128"


def test_each_product_names_others_that_exist_and_a_preset() -> None:
    from fimaq_deploy import Recipe

    for product in PRODUCTS.values():
        assert set(product.nearest) <= set(PRODUCTS) and product.preset in Recipe.presets()
