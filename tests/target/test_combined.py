from __future__ import annotations

import pytest

from fimaq_deploy.errors import UserError
from fimaq_deploy.target import combine, find_target, since


def test_one_target_combines_to_its_own_rules() -> None:
    target = find_target("onnxruntime-cpu")
    assert combine([target]) == target


def test_several_targets_combine_to_what_all_of_them_execute() -> None:
    both = combine([find_target("onnxruntime-cpu"), find_target("tensorrt")])
    assert both.integers.zero_points == "none" and both.integers.least_size == 16 and not both.integers.pooled
    attention, own = both.kernel("int", "attention"), find_target("tensorrt").kernel("int", "attention")
    assert attention and own and attention.shapes == own.shapes
    assert attention.faster, "TensorRT's attention is faster in integers"
    blocks = both.kernel("int4", "layer")
    assert blocks and blocks.blocks == {64, 128}
    assert both.high_precision == "float32"
    assert both.name == "onnxruntime-cpu+tensorrt"
    assert combine([find_target("onnxruntime-cpu"), find_target("openvino-cpu")]).integers.zero_points == "costly"


def test_integers_are_clipped_only_where_all_can() -> None:
    rtx, other = find_target("tensorrt-rtx"), find_target("tensorrt")
    assert (rtx.clip, combine([rtx]).clip, combine([rtx, other]).clip) == ("integers", "integers", "floats")
    assert combine([rtx, find_target("onnxruntime-cpu")]).splits_products


def test_no_target_is_an_error() -> None:
    with pytest.raises(UserError, match="no target"):
        combine([])


def test_together_they_are_for_the_oldest_gpu_of_any() -> None:
    rtx, other = find_target("tensorrt-rtx"), find_target("tensorrt")
    both = combine([since(rtx, 120), since(other, 89)])
    assert both.compute_capability == (8, 9) and both.executes_everywhere("fp8", "layer")
    assert combine([since(rtx, 120), other]).compute_capability is None, "nobody said it of one"
    assert combine([rtx, find_target("onnxruntime-cpu")]).floats == ()


def test_a_generation_is_two_numbers() -> None:
    rtx = find_target("tensorrt-rtx")
    assert since(rtx, 89).compute_capability == (8, 9) and since(rtx, 120).compute_capability == (12, 0)
    assert since(rtx, None) is rtx
