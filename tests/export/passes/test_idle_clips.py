"""Clips behind a softmax go where they change nothing, and only there."""

from __future__ import annotations

import numpy as np
import pytest

from fimaq_deploy.export.passes.idle_clips import drop_idle_clips


def clipped(
    high: float, scale: float, zero: str = "int8 zero = {0}", low: float = 0.0, behind: str = "", of: str = "p"
) -> str:
    return f"""g (float[n, 4] x) => (float[n, 4] y)
    <float scale = {{{scale}}}, float low = {{{low}}}, float high = {{{high}}}, {zero}> {{
        p = Softmax (x)
        c = Clip ({of}, low, high)
        q = QuantizeLinear (c, scale, zero)
        d = DequantizeLinear (q, scale, zero)
        {behind or "y = Relu (d)"}
    }}"""


@pytest.mark.parametrize(
    ("high", "scale", "zero"),
    [
        (127 / 127, 1 / 127, "int8 zero = {0}"),
        (15 / 15, 1 / 15, "int8 zero = {0}"),  # 1 is the last integer of the grid
        (14.6 / 15, 1 / 15, "int8 zero = {0}"),  # half a step below still rounds to it
        (0.5, 1 / 254, "int8 zero = {0}"),  # the container saturates there
        (1.0, 1 / 255, "uint8 zero = {0}"),
    ],
)
def test_a_clip_that_changes_no_integer_goes(through, noise, high, scale, zero) -> None:
    found = through(drop_idle_clips, clipped(high, scale, zero), x=noise(50, 4, scale=9))
    assert found.changed and found.operators[1] == ["Softmax", "QuantizeLinear", "DequantizeLinear", "Relu"]
    np.testing.assert_array_equal(found.results[1][0], found.results[0][0])


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (clipped(15 / 64, 1 / 64), "it cuts what is above 0.234375"),
        (clipped(14 / 15, 1 / 15), "it cuts what is above"),  # 1 would be the integer 15
        (clipped(1.0, 1 / 127, low=0.25), "it raises what is below 0.25"),
        (clipped(1.0, 1 / 127, of="x"), "does not read a softmax"),
        (clipped(1.0, 1 / 127, behind="e = Relu (c) y = Add (d, e)"), "not one QuantizeLinear"),
        (clipped(1.0, 1 / 127).replace("Clip (p, low, high)", "Clip (p)"), "not single stored numbers"),
    ],
)
def test_other_clips_stay_and_say_why(through, noise, text, why) -> None:
    found = through(drop_idle_clips, text, x=noise(50, 4, scale=9))
    assert not found.changed and found.operators[0] == found.operators[1]
    (reason,) = found.obstacles.values()
    assert why in reason
    without = through(
        drop_idle_clips, text.replace("QuantizeLinear (c,", "QuantizeLinear (p,"), x=noise(50, 4, scale=9)
    )
    if "cuts" in why or "raises" in why:
        assert not np.array_equal(without.results[0][0], found.results[0][0]), "it does change integers"
