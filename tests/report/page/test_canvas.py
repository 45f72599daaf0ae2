from __future__ import annotations

import re
from typing import TYPE_CHECKING
from xml.etree import ElementTree

import pytest

from fimaq_deploy.report.page import canvas

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def paint(axes: Axes) -> None:
    axes.plot([1, 2], [0.1, 20], color=canvas.SERIES[0], marker=canvas.MARKERS[0], label="a $name_1$")
    canvas.use_log_scale(axes, "y")
    canvas.name_axes(axes, "batch size", "milliseconds")
    canvas.add_key(axes)


def test_equal_charts_are_equal_bytes() -> None:
    assert canvas.draw(paint, "one", "Seen") == canvas.draw(paint, "one", "Seen")


def test_a_chart_is_xml_with_a_title_and_text_that_stays_text() -> None:
    root = ElementTree.fromstring(canvas.draw(paint, "one", "A < B"))
    assert root.attrib["aria-label"] == "A < B"
    assert {"batch size", "milliseconds", "a $name_1$", "0.1"} <= {"".join(text.itertext()) for text in root.iter()}


def test_charts_on_one_page_share_no_id_and_point_only_at_their_own() -> None:
    for name in ("one", "two"):
        svg = canvas.draw(paint, name, "")
        ids = re.findall(r'id="([^"]*)"', svg)
        assert len(ids) == len(set(ids))
        assert all(found.startswith(f"{name}-") for found in ids)
        assert set(re.findall(r'(?:href="|url\()#([^")]*)', svg)) <= set(ids)


def test_every_colour_is_a_variable_of_the_page() -> None:
    svg = canvas.draw(paint, "one", "")
    assert "var(--series-1)" in svg
    assert not re.search(r"(?:fill|stroke): #", svg)


def test_the_settings_of_the_user_change_nothing() -> None:
    import matplotlib

    before = canvas.draw(paint, "one", "")
    with matplotlib.rc_context({"axes.facecolor": "red", "font.size": 30, "svg.fonttype": "path"}):
        assert canvas.draw(paint, "one", "") == before


@pytest.mark.parametrize(("value", "text"), [(1e-5, "10⁻⁵"), (2e-6, "2·10⁻⁶"), (1e12, "10¹²"), (1, "10⁰")])
def test_powers(value: float, text: str) -> None:
    assert canvas.power_text(value) == text


@pytest.mark.parametrize(
    ("value", "power"), [(0.00043, 1e-4), (0.001, 1e-3), (0.5, 1), (999, 1), (5000, 1000), (0, 1), (9.99e-7, 1e-7)]
)
def test_the_unit_of_small_and_large_values(value: float, power: float) -> None:
    assert canvas.power_below(value) == pytest.approx(power)


def test_a_long_name_keeps_its_end() -> None:
    assert canvas.shorten("layers.2.blocks.17.attn.proj", 12) == "…7.attn.proj"
    assert canvas.shorten("blocks.0", 12) == "blocks.0"
