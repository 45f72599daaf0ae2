"""Where the time of a format is from, and what it comes to."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from fimaq_deploy.calibration.mixing.options import FLOATS, Option
from fimaq_deploy.measure.gpus import find_gpu
from fimaq_deploy.measure.products import Piece
from fimaq_deploy.pipeline.costs import WHOLE, Costs, costs_of, roofline
from fimaq_deploy.target import find_target

RTX = find_target("tensorrt-rtx")
FORMATS = ["w4a8", "w8a8", "fp8"]


def piece(layer: str = "a", rows: int = 197, inputs: int = 768, outputs: int = 3072) -> Piece:
    product: Any = SimpleNamespace(is_integer=True)
    counts = {"operations": 2 * rows * inputs * outputs, "weights": inputs * outputs}
    return Piece(layer, product, 21, **counts, reads=rows * inputs, writes=rows * outputs)


def test_a_roofline_is_by_rates_or_by_bytes() -> None:
    l4 = find_gpu("L4").rates
    wide = piece(rows=8192, inputs=4096)
    assert roofline(wide, FLOATS, l4, RTX) == pytest.approx(1e3 * wide.operations / 121e12)
    assert roofline(wide, "w8a8", l4, RTX) == pytest.approx(1e3 * wide.operations / 242e12)
    one = piece(rows=1)
    assert roofline(one, FLOATS, l4, RTX) == pytest.approx(1e3 * 2 * (one.weights + one.reads + one.writes) / 300e9)
    assert roofline(one, "w8a8", l4, RTX) == pytest.approx(1e3 * (one.weights + one.reads + 2 * one.writes) / 300e9)


def test_four_bits_save_time_only_where_they_are_read_packed() -> None:
    card, small = find_gpu("RTX 5090").rates, piece(rows=1)
    int8 = roofline(small, "w8a8", card, RTX)
    assert roofline(small, "w4a8", card, RTX) == int8, "INT4 is stored as INT8 where it would be unpacked in every run"
    assert roofline(small, "w4a8", card, RTX, "int4") > 2 * int8
    folded = replace(RTX, kernels=tuple(replace(one, packed=(("int4", "folded"),)) for one in RTX.kernels))
    assert roofline(small, "w4a8", card, folded, "int4") == int8
    assert roofline(small, "nvfp4", card, RTX) < 0.6 * int8
    many = piece(rows=4096, inputs=64, outputs=64)
    assert roofline(many, "nvfp4", card, RTX) > roofline(many, "w8a8", card, RTX), "its activations take kernels"


def test_what_multiplies_no_integers_gains_nothing_from_them() -> None:
    cuda, card = find_target("onnxruntime-cuda"), find_gpu("A10").rates
    assert roofline(piece(), "w8a8", card, cuda) == roofline(piece(), FLOATS, card, cuda)


def test_without_a_card_types_decide_and_the_source_says_so() -> None:
    costs = costs_of([piece("a"), piece("b", rows=1)], FORMATS, ["tensorrt-rtx"])
    assert costs.source == "types of products, 8 bits twice as fast as 16" and costs.measured == ()
    assert all(2 * each["w8a8"] == pytest.approx(each[FLOATS], abs=2) for each in costs.work.values())
    assert sum(each[FLOATS] for each in costs.work.values()) == pytest.approx(WHOLE, abs=2)
    named = costs_of([piece("a"), piece("b", rows=1)], FORMATS, ["tensorrt-rtx"], "L4")
    assert named.source == "roofline of L4" and named.work["b"][FLOATS] > 10 * costs.work["b"][FLOATS]


def test_calls_of_a_layer_add_up_and_costs_are_kept_as_text() -> None:
    costs = costs_of([piece("a"), piece("a"), piece("b")], ["w8a8"], ["tensorrt-rtx"], "A100")
    assert costs.work["a"]["w8a8"] == pytest.approx(2 * costs.work["b"]["w8a8"], abs=2)
    assert Costs.from_json(costs.to_json()) == costs


def test_options_get_what_they_cost() -> None:
    options = {"a": (Option("w8a8", 8, 0.5), Option(FLOATS, 32, 0.0)), "c": (Option("w8a8", 8, 0.5),)}
    costs = Costs({"a": {"w8a8": 300, FLOATS: 1000}}, "told", ())
    found = costs.into(options)
    assert [one.work for one in found["a"]] == [300, 1000] and found["c"][0].work == 0
    assert found["a"][0].loss == 0.5 and found["a"][0].bits == 8
