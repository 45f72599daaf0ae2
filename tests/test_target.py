from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from fimaq_deploy.errors import UserError
from fimaq_deploy.target import FORMAT_NAMES, TARGETS, Format, Operator, combine, find_target


def test_the_promised_targets_exist() -> None:
    assert set(TARGETS) == {"tensorrt", "tensorrt-rtx", "onnxruntime-cpu", "onnxruntime-cuda", "openvino-cpu"}


def test_an_unknown_target_lists_the_known_ones() -> None:
    with pytest.raises(UserError, match=r"unknown target 'tensorflow'.*tensorrt-rtx"):
        find_target("tensorflow")


def test_one_target_combines_to_its_own_rules() -> None:
    target = find_target("onnxruntime-cpu")
    assert combine([target]) == target


def test_several_targets_combine_to_what_all_of_them_execute() -> None:
    both = combine([find_target("onnxruntime-cpu"), find_target("tensorrt")])
    assert both.asymmetric_8bit is False
    assert both.attention == find_target("tensorrt").attention
    assert both.int4_block_sizes == {64, 128}
    assert both.high_precision == "float32"
    assert both.name == "onnxruntime-cpu+tensorrt"
    assert both.integer_attention, "TensorRT's attention is faster in integers"
    assert not combine([find_target("onnxruntime-cpu"), find_target("openvino-cpu")]).cheap_zero_points


def test_integers_are_clipped_only_where_all_can() -> None:
    rtx, other = find_target("tensorrt-rtx"), find_target("tensorrt")
    assert (rtx.clip, combine([rtx]).clip, combine([rtx, other]).clip) == ("integers", "integers", "floats")
    assert combine([rtx, find_target("onnxruntime-cpu")]).splits_products


def test_no_target_is_an_error() -> None:
    with pytest.raises(UserError, match="no target"):
        combine([])


@pytest.mark.parametrize(
    ("head_size", "tokens", "broken"),
    [(64, 512, None), (64, 577, "577 tokens are more than 512"), (24, 50, r"head size 24 is not one of")],
)
def test_the_envelope_says_which_rule_is_broken(head_size: int, tokens: int, broken: str | None) -> None:
    envelope = find_target("tensorrt").attention
    assert envelope is not None
    found = envelope.broken_rule(head_size, tokens)
    assert (found is None) if broken is None else (found is not None and found.startswith(broken))


def test_what_a_target_cannot_multiply_is_refused_with_what_it_can_and_who_does() -> None:
    cpu, rtx = find_target("onnxruntime-cpu"), find_target("tensorrt-rtx")
    assert rtx.refusal("fp8", "layer") is None and rtx.refusal("fp8", "attention") is None
    said = cpu.refusal("fp8", "layer") or ""
    assert "FP8 products cannot run on target onnxruntime-cpu" in said and "name tensorrt or tensorrt-rtx" in said
    assert "\n" not in said
    old = replace(rtx, compute_capability=(8, 6))
    assert old.refusal("fp8", "attention") == (
        "FP8 attention cannot run on compute capability 8.6: it needs 8.9 or newer"
    )


def test_kernels_are_everywhere_only_where_the_oldest_gpu_is_said() -> None:
    rtx, cpu = find_target("tensorrt-rtx"), find_target("onnxruntime-cpu")
    said = {sm: replace(rtx, compute_capability=sm).executes_everywhere("fp8", "attention") for sm in ((8, 6), (8, 9))}
    assert said == {(8, 6): False, (8, 9): True}
    assert not rtx.executes_everywhere("fp8", "attention"), "nobody said so"
    both = combine(
        [replace(rtx, compute_capability=(12, 0)), replace(find_target("tensorrt"), compute_capability=(8, 9))]
    )
    assert both.compute_capability == (8, 9) and both.executes_everywhere("fp8", "layer")
    assert combine([rtx, cpu]).floats == ()


@pytest.mark.parametrize("operator", ["layer", "attention"])
def test_floats_of_8_bits_are_allowed_on_both_of_tensorrt_by_one_table(operator: Operator) -> None:
    for name in ("tensorrt", "tensorrt-rtx"):
        target = find_target(name)
        assert target.refusal("fp8", operator) is None, "nobody said for which GPUs"
        assert replace(target, compute_capability=(8, 9)).refusal("fp8", operator) is None
        old = replace(target, compute_capability=(8, 6)).refusal("fp8", operator) or ""
        assert old.endswith("cannot run on compute capability 8.6: it needs 8.9 or newer")


def test_the_reference_lists_what_is_not_refused() -> None:
    page = (Path(__file__).parents[1] / "docs" / "reference" / "targets.md").read_text(encoding="utf-8")
    rows = [[cell.strip() for cell in line.split("|")[1:4]] for line in page.splitlines() if line.startswith("| `")]
    forms: tuple[Format, ...] = ("fp8", "nvfp4")
    operators: dict[Operator, str] = {"layer": "stored weights", "attention": "attention"}
    for name, target in TARGETS.items():
        for form in forms:
            for operator, told in operators.items():
                listed = [f"`{name}`", FORMAT_NAMES[form], told] in rows
                assert listed == (target.refusal(form, operator) is None), (name, form, operator)
