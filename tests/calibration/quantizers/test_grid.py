from __future__ import annotations

from dataclasses import replace

import pytest

from fimaq_deploy.calibration.quantizers.grid import (
    ActivationGrid,
    IntegerRange,
    WeightGrid,
    activation_grid,
    weight_grid,
)
from fimaq_deploy.errors import UserError
from fimaq_deploy.target import TARGETS, Kernel, combine, find_target

ACTIVATION_BITS = (3, 4, 6, 8)


@pytest.mark.parametrize("bits", ACTIVATION_BITS)
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("scheme", ["auto", "symmetric"])
def test_every_grid_and_offset_is_one_that_its_target_executes(bits: int, target: str, scheme: str) -> None:
    rules = find_target(target)
    grid = activation_grid(bits, scheme, rules)
    first, last = grid.offsets
    for offset in range(first, last + 1):
        span = grid.range(offset)
        assert span.high - span.low == 2**bits - 1
        assert span.low <= span.zero_point <= span.high, "zero is a value of the grid"
        if not span.fits_int8:
            assert rules.integers.zero_points != "none"
            assert (span.low, span.high, span.zero_point) == (0, 255, offset)


@pytest.mark.parametrize("bits", ACTIVATION_BITS)
def test_the_values_of_a_grid_are_scale_times_q_minus_offset(bits: int) -> None:
    grid = ActivationGrid(bits, "asymmetric")
    for offset in range(2**bits):
        span = grid.range(offset)
        values = [q - span.zero_point for q in range(span.low, span.high + 1)]
        assert values == [q - offset for q in range(2**bits)]


@pytest.mark.parametrize("bits", [2, 3, 4, 6, 8])
def test_symmetric_integers_are_twos_complement(bits: int) -> None:
    half = 2 ** (bits - 1)
    assert WeightGrid(bits).range == IntegerRange(-half, half - 1)
    assert WeightGrid(bits).range.fits_int8
    assert ActivationGrid(bits, "symmetric").range(half) == IntegerRange(-half, half - 1)


def test_auto_is_asymmetric_wherever_the_target_can() -> None:
    assert activation_grid(8, "auto", find_target("onnxruntime-cpu")).scheme == "asymmetric"
    assert activation_grid(8, "auto", find_target("openvino-cpu")).scheme == "symmetric", "zero points cost time there"
    assert activation_grid(8, "asymmetric", find_target("openvino-cpu")).scheme == "asymmetric"
    assert activation_grid(8, "auto", find_target("tensorrt")).scheme == "symmetric"
    assert all(activation_grid(bits, "auto", find_target("tensorrt")).scheme == "asymmetric" for bits in (3, 4, 6))


@pytest.mark.parametrize(("target", "scheme"), [("openvino-cpu", "asymmetric"), ("tensorrt", "symmetric")])
def test_what_is_never_negative_uses_all_of_an_unsigned_container_where_there_is_one(target: str, scheme: str) -> None:
    grid = activation_grid(8, "auto", find_target(target), nonnegative=True)
    assert grid.scheme == scheme
    assert activation_grid(8, "symmetric", find_target(target), nonnegative=True).scheme == "symmetric", "as asked"


def test_an_asked_for_scheme_is_never_changed() -> None:
    for bits in ACTIVATION_BITS:
        assert activation_grid(bits, "symmetric", find_target("onnxruntime-cpu")).scheme == "symmetric"


def test_eight_asymmetric_bits_are_refused_where_they_cannot_run_and_the_error_names_what_can() -> None:
    both = combine([find_target("onnxruntime-cpu"), find_target("tensorrt-rtx")])
    with pytest.raises(UserError, match=r"onnxruntime-cpu\+tensorrt-rtx.*symmetric 8 bits, and 6, 4 or 3 bits"):
        activation_grid(8, "asymmetric", both)


@pytest.mark.parametrize(("bits", "block"), [(4, 32), (8, 64), (3, 128)])
def test_int4_blocks_that_the_target_lacks_are_refused_and_the_error_names_what_it_has(bits: int, block: int) -> None:
    with pytest.raises(UserError, match=rf"{bits}-bit weights in blocks of {block}.*tensorrt.*blocks of 64, 128"):
        weight_grid(bits, block, find_target("tensorrt"))


def test_int4_blocks_that_the_target_has() -> None:
    assert weight_grid(4, 64, find_target("tensorrt")) == WeightGrid(4, 64)
    assert weight_grid(4, 16, find_target("onnxruntime-cpu")).range == IntegerRange(-8, 7)


def test_targets_without_a_common_block_length_say_so() -> None:
    one = find_target("tensorrt")
    other = replace(one, kernels=(Kernel("int4", "layer", frozenset({32}), frozenset({"floats"})),))
    with pytest.raises(UserError, match="INT4 weights in blocks cannot run on target tensorrt: "):
        weight_grid(4, 64, combine([one, other]))
    with pytest.raises(
        UserError, match="INT4 weights in blocks cannot run on target tensorrt: it executes INT8 products with"
    ):
        weight_grid(4, 64, replace(one, kernels=one.kernels[:1]))


def test_only_whole_containers_saturate_alone() -> None:
    assert IntegerRange(-128, 127).saturates_alone
    assert IntegerRange(0, 255, 7).saturates_alone
    assert not IntegerRange(0, 127).saturates_alone
    assert not IntegerRange(-8, 7).saturates_alone
