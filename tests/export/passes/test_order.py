"""The passes of each target, in their order, are data."""

from __future__ import annotations

from dataclasses import replace

import onnx_ir as ir
import pytest

from fimaq_deploy.export import trace
from fimaq_deploy.export.passes import CLEANING, WRITING, obstacles, passes_for, run_passes
from fimaq_deploy.target import TARGETS, find_target

ALWAYS = ["remove_unused", "name_nodes", "forget_notes"]
CPU = [
    "transpose_before_quantizing",
    "rows_as_batch",
    "patches_as_product",
    *ALWAYS,
    "dynamic_spelled_out",
    "drop_unread_rows",
]
SHAPE = (3, 8, 8)


def names(target) -> list[str]:
    return [each.name for each in passes_for(target)]


@pytest.mark.parametrize("name", [name for name, target in TARGETS.items() if target.high_precision == "float32"])
def test_runtimes_with_float32_get_the_same_file(name) -> None:
    assert names(find_target(name)) == CPU


def test_the_tensorrt_family() -> None:
    half = ["to_float16", "guard_split_products", "drop_unread_rows", "pack_float4"]
    always = [*ALWAYS, "dynamic_in_one_operator"]
    assert names(find_target("tensorrt")) == [*always, *half]
    assert names(find_target("tensorrt-rtx")) == ["patches_as_product", *always, "clip_integers", *half]
    wide = names(replace(find_target("tensorrt-rtx"), high_precision="bfloat16"))
    assert wide[-6:] == ["clip_integers", "attention_in_float16", "to_bfloat16", *half[1:]]


@pytest.mark.parametrize(
    ("target", "storage", "last"),
    [
        ("onnxruntime-cpu", "auto", "pack_behind_cast"),
        ("onnxruntime-cpu", "int4", "pack_behind_cast"),
        ("onnxruntime-cpu", "int8", "drop_unread_rows"),
        ("tensorrt-rtx", "auto", "pack_float4"),
        ("tensorrt-rtx", "int4", "pack_channels"),
    ],
)
def test_weights_are_packed_last_where_that_is_free_or_asked(target, storage, last) -> None:
    assert [each.name for each in passes_for(find_target(target), storage)][-1] == last


def test_every_pass_has_a_name_of_its_own() -> None:
    every = [each.name for each in CLEANING] + [each.name for each, _ in WRITING]
    assert len(every) == len(set(every))


def test_passes_say_what_they_changed_and_what_they_left(exported) -> None:
    target = find_target("onnxruntime-cpu")
    traced = trace(exported("w8a8")[0], SHAPE).model
    why = obstacles(traced, target)
    changed = run_passes(traced, passes_for(target))
    assert changed == ("transpose_before_quantizing", "rows_as_batch", "patches_as_product", *ALWAYS)
    assert "patches_as_product" not in why, "the one convolution has no obstacle"
    assert set(why["rows_as_batch"].values()) == {
        "its input has not two axes",
        "its weights are not a matrix of stored integers",
    }


def test_a_file_that_is_written_already_goes_through_unchanged(exported) -> None:
    model = ir.load(exported("w8a8")[1])
    before = [node.name for node in model.graph]
    assert run_passes(model, passes_for(find_target("onnxruntime-cpu"))) == ()
    assert [node.name for node in model.graph] == before
