"""Pads by nothing go."""

from __future__ import annotations

import numpy as np
import pytest

from fimaq_deploy.export.passes.idle_pads import drop_idle_pads


def padded(pads: str = "0, 0, 0, 0", width: int = 3, behind: str = "y = Relu (p)") -> str:
    return f"""g (float[n, 3] x) => (float[n, {width}] y) <int64[4] pads = {{{pads}}}, float zero = {{0.0}}> {{
        p = Pad (x, pads, zero)
        {behind}
    }}"""


def test_a_pad_by_nothing_is_what_it_reads(through, noise) -> None:
    found = through(drop_idle_pads, padded(), x=noise(2, 3))
    assert found.changed and found.operators[1] == ["Relu"]
    np.testing.assert_array_equal(found.results[1][0], found.results[0][0])


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (padded("0, 1, 0, 0", 4), "it pads by [0, 1, 0, 0]"),
        (padded("0, -1, 0, 1"), "it pads by [0, -1, 0, 1]"),
        (padded(behind="").replace("p = Pad", "y = Pad"), "it makes an output"),
    ],
)
def test_other_pads_stay_and_say_why(through, noise, text, why) -> None:
    found = through(drop_idle_pads, text, x=noise(2, 3))
    assert not found.changed and found.operators[0] == found.operators[1]
    assert list(found.obstacles.values()) == [why if "[" in why else f"{why} of the graph"]


def test_a_pad_whose_size_is_computed_stays(draw) -> None:
    text = """g (float[n, 3] x, int64[4] pads) => (float[n, w] y) <float zero = {0.0}> {
        p = Pad (x, pads, zero)
        y = Relu (p)
    }"""
    assert list(drop_idle_pads.obstacles(draw(text)).values()) == ["how much it pads is not stored"]
