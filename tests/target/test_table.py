from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from fimaq_deploy.errors import UserError
from fimaq_deploy.target import PRODUCTS, TARGETS, Kernel, Operator, ProductName, Shapes, Target, find_target


def test_the_promised_targets_exist() -> None:
    assert set(TARGETS) == {"tensorrt", "tensorrt-rtx", "onnxruntime-cpu", "onnxruntime-cuda", "openvino-cpu"}


def test_an_unknown_target_lists_the_known_ones() -> None:
    with pytest.raises(UserError, match=r"unknown target 'tensorflow'.*tensorrt-rtx"):
        find_target("tensorflow")


@pytest.mark.parametrize(
    ("head_size", "tokens", "broken"),
    [(64, 512, None), (64, 577, "577 tokens are more than 512"), (24, 50, r"head size 24 is not one of")],
)
def test_the_envelope_says_which_rule_is_broken(head_size: int, tokens: int, broken: str | None) -> None:
    kernel = find_target("tensorrt").kernel("int", "attention")
    assert kernel is not None
    found = kernel.broken_rule(head_size, tokens)
    assert (found is None) if broken is None else (found is not None and found.startswith(broken))


def test_what_a_target_cannot_multiply_is_refused_with_what_it_can_and_who_does() -> None:
    cpu, rtx = find_target("onnxruntime-cpu"), find_target("tensorrt-rtx")
    assert rtx.refusal("fp8", "layer") is None and rtx.refusal("fp8", "attention") is None
    assert cpu.refusal("fp8", "layer") == (
        "FP8 products with stored weights cannot run on target onnxruntime-cpu: it executes INT8 products with stored "
        "weights, INT4 weights in blocks of 16, 32, 64, 128, 256, INT8 attention; name tensorrt or tensorrt-rtx alone, "
        "or take a recipe of INT8, such as w8a8"
    )
    old = replace(rtx, compute_capability=(8, 6))
    assert old.refusal("fp8", "attention") == (
        "FP8 attention cannot run on target tensorrt-rtx for compute capability 8.6: it needs 8.9 or newer, and 8.6 "
        "executes INT8 products with stored weights, INT4 weights in blocks of 64, 128, INT8 attention; take "
        "attention.format auto: INT8 attention where it fuses, else floats"
    )


EVERY: list[tuple[ProductName, Operator]] = [(form, "layer") for form in PRODUCTS]
EVERY += [("int", "attention"), ("fp8", "attention")]


@pytest.mark.parametrize("sm", [None, (7, 5), (8, 0), (8, 6), (8, 9), (9, 0), (10, 0), (12, 0)])
@pytest.mark.parametrize("name", TARGETS)
def test_every_refusal_is_one_line_with_format_operator_target_and_what_runs(
    name: str, sm: tuple[int, int] | None
) -> None:
    target = replace(find_target(name), compute_capability=sm)
    runs = [(one.format, one.operator) for one in target.kernels if one.since is None or sm is None or sm >= one.since]
    for form, operator in EVERY:
        said = target.refusal(form, operator)
        assert (said is None) == ((form, operator) in runs), (form, operator)
        if said is not None:
            assert said.startswith(f"{PRODUCTS[form].title} ") and f"target {name}" in said and "\n" not in said
            assert ("attention" in said.split("cannot")[0]) == (operator == "attention")
            told = said.split("executes", 1)[1]
            assert all(one.title in told for one in target.executed()), "what it can"
            assert "take " in told or "leave " in told, "what to do"


def test_the_nearest_that_runs_is_named() -> None:
    rtx = find_target("tensorrt-rtx")
    ada, ampere = (replace(rtx, compute_capability=sm) for sm in ((8, 9), (8, 6)))
    assert (ada.refusal("nvfp4", "layer") or "").endswith("take a recipe of FP8, such as fp8")
    assert (ampere.refusal("nvfp4", "layer") or "").endswith("take a recipe of INT8, such as w8a8")
    assert "compute capability 7.5: it needs 8.0" in (
        replace(rtx, compute_capability=(7, 5)).refusal("int4", "layer") or ""
    )


def test_storage_in_int4_is_refused_where_nothing_reads_it() -> None:
    rtx = find_target("tensorrt-rtx")
    turing = replace(rtx, compute_capability=(7, 5))
    assert turing.storage_refusal("auto") is None and turing.storage_refusal("int8") is None
    assert (turing.storage_refusal("int4") or "").endswith("capability 7.5: it needs 8.0 or newer; take int8")
    assert (
        rtx.storage_refusal("int4") is None and replace(rtx, compute_capability=(8, 0)).storage_refusal("int4") is None
    )
    bytes_alone = Target("mine", "float32", (Kernel("int", "layer", frozenset({"channel"})),))
    assert "target mine reads: take int8" in (bytes_alone.storage_refusal("int4") or "")


def test_a_table_without_integers_refuses_them() -> None:
    only = Target("floaty", "float16", (Kernel("fp8", "layer", frozenset({"channel"})),))
    said = only.refusal("int", "layer") or ""
    assert "INT8 products with stored weights cannot run on target floaty: it executes FP8 products" in said
    assert said.endswith("take a recipe of FP8, such as fp8")
    assert not only.integers.native and only.int4_channels is None and not only.reads_the_common_file
    nothing = Target("nothing", "float32", ())
    assert (nothing.refusal("int", "layer") or "").endswith("or take floats")
    attention = nothing.refusal("fp8", "attention") or ""
    assert attention.endswith("leave attention in floats with attention.quantize never")


def test_a_format_and_operator_have_one_kernel() -> None:
    with pytest.raises(ValueError, match="one kernel for each format and operator"):
        Target(
            "twice", "float32", (Kernel("int", "attention"), Kernel("int", "attention", shapes=Shapes(least_tokens=2)))
        )


def test_kernels_are_everywhere_only_where_the_oldest_gpu_is_said() -> None:
    rtx = find_target("tensorrt-rtx")
    said = {sm: replace(rtx, compute_capability=sm).executes_everywhere("fp8", "attention") for sm in ((8, 6), (8, 9))}
    assert said == {(8, 6): False, (8, 9): True}
    assert not rtx.executes_everywhere("fp8", "attention"), "nobody said so"


def test_nvfp4_is_of_the_gpus_that_each_compiler_has() -> None:
    """TensorRT-RTX compiles for 12.0 and not for 10.0, of the data centre, which TensorRT has."""
    needed = {name: find_target(name).kernel("nvfp4", "layer") for name in ("tensorrt", "tensorrt-rtx")}
    assert {name: one and one.since for name, one in needed.items()} == {"tensorrt": (10, 0), "tensorrt-rtx": (12, 0)}


def test_the_reference_lists_the_table() -> None:
    page = (Path(__file__).parents[2] / "docs" / "reference" / "targets.md").read_text(encoding="utf-8")
    rows = [[cell.strip() for cell in line.split("|")[1:4]] for line in page.splitlines() if line.startswith("| `")]
    for name, target in TARGETS.items():
        for form, operator in EVERY:
            told = "attention" if operator == "attention" else "stored weights"
            listed = any(row[:2] == [f"`{name}`", PRODUCTS[form].title] and row[2].startswith(told) for row in rows)
            assert listed == (target.kernel(form, operator) is not None), (name, form, operator)
