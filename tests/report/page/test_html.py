from __future__ import annotations

import subprocess
import sys
from html import unescape
from html.parser import HTMLParser

from fimaq_deploy import report as r
from fimaq_deploy.pipeline.builds import BuildResult
from fimaq_deploy.report.build_page.sections import sections
from fimaq_deploy.report.page.html import render
from fimaq_deploy.report.page.parts import Card, Exhibit, Page, Section

VOID = {"meta", "link", "br", "hr", "img", "input"}


class Outline(HTMLParser):
    """Checks that tags are nested and collects ids, links and charts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.charts: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        found = dict(attributes)
        self.ids += [found["id"]] if found.get("id") else []
        self.links += [found[name] for name in ("href", "src", "xlink:href") if found.get(name)]
        self.charts += [found["aria-label"]] if tag == "svg" else []
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attributes)
        if tag not in VOID:
            self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def exhibits(report: r.Report) -> dict[str, Exhibit]:
    return {exhibit.id: exhibit for section in sections(report) for exhibit in section.exhibits}


def test_a_report_with_little_in_it_has_a_page(full_report: r.Report) -> None:
    bare = {"rows": full_report.rows[:1], **{name: [] for name in ("blocks", "steps", "grids", "sensitivity")}}
    bare |= {name: [] for name in ("audits", "parity", "targets")}
    report = full_report.model_copy(update=bare)
    assert [section.id for section in sections(report)] == ["results", "environment"]
    page = Outline(r.to_html(report))
    assert page.charts == []
    assert "nothing that can be deployed was run here" in r.to_markdown(report)


def test_the_page_is_whole_and_needs_nothing_else(full_report: r.Report) -> None:
    text = r.to_html(full_report)
    page = Outline(text)
    assert len(page.ids) == len(set(page.ids))
    assert {link[1:] for link in page.links if link.startswith("#")} <= set(page.ids)
    assert {link for link in page.links if not link.startswith("#")} == {"data:,"}
    assert all(word not in text for word in ("<script", "@import", "http://f", "https:", "#fffffe"))
    assert all(page.charts)


def test_equal_reports_are_equal_pages(full_report: r.Report) -> None:
    assert r.to_html(full_report) == r.to_html(full_report.model_copy(deep=True))


def test_the_page_of_a_build_is_beside_its_report(built: BuildResult) -> None:
    assert (built.out / "report.html").read_text(encoding="utf-8") == r.to_html(built.report)


def test_a_build_fills_the_rooms_that_need_no_gpu(built: BuildResult) -> None:
    report = built.report
    assert {"convergence", "grid-use", "clipping", "sensitivity-block", "sensitivity-layer"} <= set(exhibits(report))
    assert all(len(block.curve) == block.iterations for block in report.blocks)
    names = {block.name for block in report.blocks}
    assert {one.name for one in report.sensitivity if one.kind == "block"} == names
    assert {"weight", "activation"} == {grid.kind for grid in report.grids}
    assert "--sensitivity 32" in report.command


def test_page_and_text_say_the_same(full_report: r.Report) -> None:
    page, text = unescape(r.to_html(full_report)), r.to_markdown(full_report)
    page = page.replace("\u00a0", " ").replace("\u2011", "-")
    for exhibit in exhibits(full_report).values():
        assert exhibit.title in text
        assert all(cell in text and cell in page for row in exhibit.rows for cell in row)


def test_what_the_user_typed_is_only_text(full_report: r.Report) -> None:
    model = full_report.model.model_copy(update={"name": "<script>alert(1)</script>"})
    page = r.to_html(full_report.model_copy(update={"model": model, "command": "a && <b>"}))
    assert "<script" not in page
    assert "a &amp;&amp; &lt;b&gt;" in page


def test_the_verdict_comes_first(full_report: r.Report) -> None:
    page = r.to_html(full_report)
    assert 0 < page.index("Look closer</p>") < page.index("a GEMM of blocks.3") < page.index("<section")


def test_other_pages_use_the_same_base() -> None:
    exhibit = Exhibit(
        "found", "A finding", header=("", "top-1 %", "why"), rows=(("a", "9.5", ""), ("b", "not run", "x"))
    )
    page = Page(
        kind="Sweep",
        heading="two models",
        status="Done",
        headline="All cells ran.",
        created="today",
        command="fimaq-deploy sweep",
        cards=[Card("Cells", "8")],
        sections=[Section("board", "Leaderboard", exhibits=(exhibit,))],
    )
    text = render(page)
    Outline(text)
    assert '<td data-label="top-1 %" class="n">9.5</td>' in text
    assert '<th scope="col">why</th>' in text


def test_reading_a_report_loads_no_drawing() -> None:
    heavy = ("matplotlib", "jinja2", "torch")
    code = f"import sys, fimaq_deploy.report; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
