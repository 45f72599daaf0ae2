from __future__ import annotations

import pytest

from fimaq_deploy.engines.tensorrt_library import RTX, TENSORRT
from fimaq_deploy.engines.versions import (
    OF_RTX,
    BuildOptions,
    check_options,
    check_version,
    find_level,
    not_for_gpu,
    parse_version,
    passes_strong_typing,
)
from fimaq_deploy.errors import UserError


@pytest.mark.parametrize(
    ("text", "version"), [("10.13.0.35", (10, 13)), ("1.7.1.116", (1, 7)), ("11.0.0rc1", (11, 0)), ("11", (11, 0))]
)
def test_versions_are_read(text, version):
    assert parse_version(text) == version


def test_old_libraries_are_refused_with_the_version_that_will_do():
    check_version(TENSORRT, (10, 8))
    check_version(TENSORRT, (11, 0))
    check_version(RTX, (1, 7))
    with pytest.raises(UserError, match=r"tensorrt 10.3 is too old .* install 10.8"):
        check_version(TENSORRT, (10, 3))


@pytest.mark.parametrize(
    ("version", "flags", "asked"),
    [((10, 8), ["STRONGLY_TYPED"], True), ((11, 0), [], False), ((11, 0), ["STRONGLY_TYPED"], True)],
)
def test_strong_typing_is_asked_for_where_there_is_a_choice(version, flags, asked):
    assert passes_strong_typing(version, flags) is asked


def test_options_that_a_target_cannot_take_name_what_takes_their_place():
    check_options(TENSORRT, BuildOptions(1 << 30, "timing.cache", "ampere_plus"))
    check_options(RTX, BuildOptions(1 << 30))
    with pytest.raises(UserError, match="times no kernels"):
        check_options(RTX, BuildOptions(timing_cache="timing.cache"))
    with pytest.raises(UserError, match="compute capabilities instead"):
        check_options(RTX, BuildOptions(hardware_compatibility="ampere_plus"))
    with pytest.raises(UserError, match="at least 0"):
        check_options(TENSORRT, BuildOptions(workspace_bytes=-1))


def test_levels_are_those_of_the_library():
    assert find_level("ampere-plus", ["NONE", "AMPERE_PLUS"], (10, 8)) == "AMPERE_PLUS"
    with pytest.raises(UserError, match=r"TensorRT 10.8 has ampere_plus, none; name one"):
        find_level("same_compute_capability", ["NONE", "AMPERE_PLUS"], (10, 8))


@pytest.mark.parametrize(
    ("capability", "tensorrt", "rtx"),
    [
        ((7, 0), False, False),
        ((7, 5), True, True),
        ((9, 0), True, False),
        ((10, 0), True, False),
        ((12, 0), True, True),
    ],
)
def test_which_gpus_have_engines(capability, tensorrt, rtx):
    assert (not_for_gpu(TENSORRT, capability, ()) is None, not_for_gpu(RTX, capability, OF_RTX) is None) == (
        tensorrt,
        rtx,
    )


def test_a_gpu_without_engines_is_told_which_have_them():
    assert not_for_gpu(TENSORRT, (7, 0), ()) == "it needs compute capability 7.5 or newer"
    assert not_for_gpu(RTX, (9, 0), ((12, 0), (8, 9))) == "it compiles for 8.9, 12.0 only"
