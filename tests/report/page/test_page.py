"""The page in a real browser. Skipped where none is installed: `apt-get install chromium`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from fimaq_deploy.pipeline.builds import BuildResult
from fimaq_deploy.report import Report, to_html
from fimaq_deploy.report.comparison.judge import Build, compare
from fimaq_deploy.report.comparison.page import write_comparison
from fimaq_deploy.report.comparison.records import Thresholds
from fimaq_deploy.report.sweep_page import page as sweep_page
from fimaq_deploy.report.sweep_page.records import Sweep

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

DESKTOP, PHONE = 1280, 390
RECORDED = Path(__file__).parents[1] / "data" / "sweep.json"

# Every chart with the size of its box, the number of shapes in it, and the texts that reach beyond its edges or lie on
# each other.
CHARTS = """() => [...document.querySelectorAll('svg')].map(svg => {
    const box = svg.getBoundingClientRect();
    const beyond = text => {
        const own = text.getBoundingClientRect();
        return own.left < box.left - 1 || own.right > box.right + 1
            || own.top < box.top - 1 || own.bottom > box.bottom + 1;
    };
    const texts = [...svg.querySelectorAll('text')];
    const boxes = texts.map(text => text.getBoundingClientRect());
    const cover = (a, b) => Math.min(a.right, b.right) - Math.max(a.left, b.left) > 2
        && Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top) > a.height / 3;
    const pairs = boxes.flatMap((a, i) => boxes.slice(i + 1).map((b, j) => [a, b, i, i + 1 + j]));
    return {
        name: svg.getAttribute('aria-label'),
        width: box.width,
        height: box.height,
        shapes: [...svg.querySelectorAll('path, use')].filter(shape => shape.getBoundingClientRect().width > 0).length,
        texts: texts.length,
        font: Math.min(...texts.map(text => text.getBoundingClientRect().height)),
        covered: pairs.filter(([a, b]) => cover(a, b)).map(([, , i, j]) => [i, j].map(k => texts[k].textContent)),
        cut: texts.filter(beyond).map(text => text.textContent),
    };
})"""

# What sticks out of the window, except inside a box that scrolls.
OUTSIDE = """() => [...document.querySelectorAll('body *')].filter(element =>
    !element.closest('.scroll, svg') && element.getBoundingClientRect().right > innerWidth + 1
).map(element => element.outerHTML.slice(0, 80))"""

# Tables that do not fit the window.
SCROLLING = """() => [...document.querySelectorAll('.scroll')].filter(box => box.scrollWidth > box.clientWidth + 1
).map(box => box.textContent.slice(0, 80))"""

# The contrast of each text that is not in a chart with the background behind it, by WCAG 2.
CONTRAST = """() => {
    const light = color => {
        const [r, g, b] = color.match(/[\\d.]+/g).slice(0, 3).map(value => value / 255)
            .map(value => value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4);
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const behind = element => {
        const color = getComputedStyle(element).backgroundColor;
        return color === 'rgba(0, 0, 0, 0)' ? behind(element.parentElement) : color;
    };
    const told = [...document.querySelectorAll('h1, h2, h3, p, li, th, td, a, summary, pre, footer, .card *')];
    return told.filter(element => element.textContent.trim() && element.checkVisibility()).map(element => {
        const [dark, bright] = [getComputedStyle(element).color, behind(element)].map(light).sort((a, b) => a - b);
        return [(bright + 0.05) / (dark + 0.05), element.textContent.trim().slice(0, 40)];
    });
}"""


@pytest.fixture
def full_page(full_report: Report, tmp_path: Path) -> Path:
    path = tmp_path / "full.html"
    path.write_text(to_html(full_report), encoding="utf-8")
    return path


class Opened:
    """A page in a window of its own, with all that it said and asked for while it was loaded."""

    def __init__(self, browser: Browser, path: Path, width: int, scheme: Any = "light") -> None:
        self.page: Page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
        self.said: list[str] = []
        self.asked: list[str] = []
        self.page.on("console", lambda message: self.said.append(message.text))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.goto(path.resolve().as_uri())
        self.page.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")

    def __enter__(self) -> Opened:
        return self

    def __exit__(self, *_: object) -> None:
        self.page.close()


def check(opened: Opened, path: Path, charts: int) -> None:
    """Quiet, alone, drawn, and nothing cut off."""
    assert opened.said == []
    assert [url for url in opened.asked if not url.startswith("data:")] == [path.resolve().as_uri()]
    found = opened.page.evaluate(CHARTS)
    assert len(found) == charts
    for chart in found:
        assert min(chart["width"], chart["height"]) > 60, chart
        assert min(chart["shapes"], chart["texts"]) > 3, chart
        assert chart["font"] > 8, chart
        assert chart["cut"] == [], chart
        assert chart["covered"] == [], chart
    assert opened.page.evaluate("document.documentElement.scrollWidth") <= opened.page.evaluate("innerWidth")
    assert opened.page.evaluate(OUTSIDE) == []
    if opened.page.evaluate("innerWidth") <= PHONE:
        assert opened.page.evaluate(SCROLLING) == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [DESKTOP, PHONE])
def test_the_page_of_a_build_is_whole(browser: Browser, built: BuildResult, width: int, scheme: str) -> None:
    path = built.out / "report.html"
    with Opened(browser, path, width, scheme) as opened:
        check(opened, path, path.read_text(encoding="utf-8").count("<svg"))


@pytest.mark.parametrize("width", [DESKTOP, PHONE, 320])
def test_a_page_with_everything_is_whole(browser: Browser, full_page: Path, width: int) -> None:
    with Opened(browser, full_page, width) as opened:
        check(opened, full_page, 11)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [DESKTOP, PHONE])
def test_the_page_of_a_sweep_is_whole(browser: Browser, tmp_path: Path, width: int, scheme: str) -> None:
    """Two models and four recipes, as they were recorded."""
    path = tmp_path / "sweep.html"
    sweep = Sweep.model_validate_json(RECORDED.read_text(encoding="utf-8"))
    path.write_text(sweep_page.to_html(sweep_page.sweep_page(sweep)), encoding="utf-8")
    with Opened(browser, path, width, scheme) as opened:
        check(opened, path, 2)


@pytest.mark.parametrize("width", [DESKTOP, PHONE, 320])
def test_the_page_of_a_comparison_is_whole(browser: Browser, full_report: Report, tmp_path: Path, width: int) -> None:
    slower = {"speedup": 1.3, "speedup_interval": (1.28, 1.32)}
    rows = [
        row.model_copy(update={"latency": [one.model_copy(update=slower) for one in row.latency if row.deployed]})
        for row in full_report.rows
    ]
    new = Build("build/a name that is long enough to wrap", full_report.model_copy(update={"rows": rows}), None)
    path = tmp_path / "compare.html"
    limits = Thresholds(max_drop=1, max_slowdown=20, max_growth=5)
    write_comparison(compare(new, [Build("old", full_report, None)], limits), html=path)
    with Opened(browser, path, width) as opened:
        check(opened, path, 2)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_can_be_read(browser: Browser, full_page: Path, scheme: str) -> None:
    with Opened(browser, full_page, DESKTOP, scheme) as opened:
        contrast, text = min(opened.page.evaluate(CONTRAST))
    assert contrast >= 4.5, text


def test_charts_follow_light_dark_and_print(browser: Browser, full_page: Path) -> None:
    color = "getComputedStyle(document.querySelector('svg text')).fill"
    background = "getComputedStyle(document.body).backgroundColor"
    with Opened(browser, full_page, DESKTOP, "light") as opened:
        light = opened.page.evaluate(f"[{color}, {background}]")
    with Opened(browser, full_page, DESKTOP, "dark") as opened:
        dark = opened.page.evaluate(f"[{color}, {background}]")
        opened.page.emulate_media(media="print")
        printed = opened.page.evaluate(f"[{color}, {background}]")
    assert light[0] != dark[0]
    assert light[1] != dark[1]
    assert printed == [light[0], "rgb(255, 255, 255)"]


def test_the_page_prints_with_its_figures(browser: Browser, full_page: Path) -> None:
    """Paper has nothing to click: folded tables are open there."""
    visible = "document.querySelector('details td').checkVisibility()"
    page = browser.new_page()
    page.goto(full_page.as_uri())
    assert not page.evaluate(visible)
    page.emulate_media(media="print")
    assert page.evaluate(visible)
    assert page.pdf(format="A4").startswith(b"%PDF")
    page.close()
