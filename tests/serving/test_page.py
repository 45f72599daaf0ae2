"""The page in a real browser. Skipped where none is installed: `apt-get install chromium`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

NARROW, WIDE = 390, 1280


@pytest.mark.parametrize("width", [NARROW, WIDE])
def test_an_image_is_answered_with_the_original_beside(
    browser: Any, served: Any, photographs: Any, tmp_path: Path, width: int
) -> None:
    page = browser.new_page(viewport={"width": width, "height": 900})
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.goto(f"http://{served.address}/", wait_until="networkidle")
    assert page.locator("#model option").all_inner_texts() == ["tiny", "second"]
    page.set_input_files("#file", str(photographs(1)[0]))
    page.wait_for_selector("section:nth-of-type(2)")
    assert page.locator("h2").all_inner_texts() == ["Quantized", "FP32"]
    assert page.locator("li").count() == 10 and page.locator("#told").inner_text().startswith("prepared in")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.screenshot(path=str(tmp_path / f"{width}.png"))
    assert said == []
    page.close()


@pytest.mark.parametrize("width", [NARROW, WIDE])
def test_objects_are_framed_and_a_map_lies_over_the_image(
    browser: Any, with_heads: Any, photographs: Any, tmp_path: Path, width: int
) -> None:
    page = browser.new_page(viewport={"width": width, "height": 900})
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.goto(f"http://{with_heads.address}/", wait_until="networkidle")
    page.set_input_files("#file", str(photographs(1)[0]))
    page.wait_for_selector("section:nth-of-type(2)")
    frames = page.locator("section:first-of-type .box")
    assert frames.count() == page.locator("section:first-of-type li").count() > 0
    assert page.evaluate("""Array.from(document.querySelectorAll("figure")).every(figure =>
        Array.from(figure.querySelectorAll(".box")).every(box => {
            const [inner, outer] = [box.getBoundingClientRect(), figure.getBoundingClientRect()];
            return inner.left >= outer.left - 1 && inner.right <= outer.right + 1 && inner.bottom <= outer.bottom + 1;
        }))""")
    page.select_option("#model", "segmenter")
    page.set_input_files("#file", str(photographs(2)[1]))
    page.wait_for_selector("section:nth-of-type(2) img.map")
    page.wait_for_function("Array.from(document.querySelectorAll('img.map')).every(one => one.naturalWidth === 30)")
    assert page.locator("img.map").count() == 2
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.screenshot(path=str(tmp_path / f"{width}.png"))
    assert said == []
    page.close()


def test_what_is_no_image_is_said(browser: Any, served: Any, tmp_path: Path) -> None:
    page = browser.new_page()
    page.goto(f"http://{served.address}/", wait_until="networkidle")
    (tmp_path / "cat.png").write_bytes(b"no image")
    page.set_input_files("#file", str(tmp_path / "cat.png"))
    page.wait_for_function("document.getElementById('told').textContent.includes('cannot be read')")
    assert page.locator("section").count() == 0
    page.close()
