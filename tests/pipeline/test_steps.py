from __future__ import annotations

from itertools import count

import pytest

from fimaq_deploy.pipeline.steps import Step, Steps


def test_each_step_is_told_of_and_timed() -> None:
    told: list[tuple[str, int, int, str]] = []
    ticks = count(0, 2)
    steps = Steps(lambda *call: told.append(call), clock=lambda: float(next(ticks)))
    with steps.step("load"):
        pass
    with steps.step("quantize") as progress:
        progress(1, 3, "blocks.0")
    assert told == [("load", 0, 0, ""), ("quantize", 0, 0, ""), ("quantize", 1, 3, "blocks.0")]
    assert steps.done == [Step("load", 2.0), Step("quantize", 2.0)]


def test_a_step_that_fails_is_not_done() -> None:
    steps = Steps(None)
    with pytest.raises(ZeroDivisionError), steps.step("load"):
        _ = 1 / 0
    assert steps.done == []
