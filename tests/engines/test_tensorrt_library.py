from __future__ import annotations

import pytest

from fimaq_deploy.engines.cuda import no_gpu
from fimaq_deploy.engines.tensorrt_library import (
    FAMILY,
    RTX,
    TENSORRT,
    bind,
    compute_capabilities,
    messages,
    not_buildable,
    not_for,
    not_runnable,
    why,
)
from fimaq_deploy.engines.versions import OF_RTX

pytest.importorskip("tensorrt_rtx")


def test_the_installed_library_says_which_gpus_it_serves():
    known = compute_capabilities()
    assert set(OF_RTX) <= set(known), "what is said where it is not installed"
    assert [not_for("tensorrt-rtx", capability) for capability in known] == [None] * len(known)
    assert not_for("tensorrt-rtx", (9, 0)) is not None and not_for("tensorrt", (9, 0)) is None


@pytest.mark.parametrize("target", FAMILY)
def test_what_cannot_be_built_cannot_be_run(target: str) -> None:
    assert not_buildable(target) is None or not_runnable(target) is not None
    if no_gpu():
        assert not_runnable(target)


def test_polygraphy_is_bound_to_the_library_that_is_asked_for() -> None:
    library = bind(RTX)
    assert library.member == RTX and library.version >= RTX.oldest
    assert library.bindings.__name__.startswith("tensorrt_rtx") and library.rtx is not None
    assert bind(RTX).trt is library.trt, "its modules are imported once"


def test_what_the_library_says_is_kept_and_told_in_one_line() -> None:
    library = bind(RTX)
    with messages(library) as log:
        library.logger.error("In node 3 (Relu): it is\n  not here")
        library.logger.info("not worth telling")
    assert why(log.getvalue(), ValueError("x")) == "In node 3 (Relu): it is"
    assert why("", ValueError("what\n happened")) == "what happened"
    assert TENSORRT.oldest == (10, 8)
