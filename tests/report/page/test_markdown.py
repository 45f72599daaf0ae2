"""`report.md`: the page as text, whatever a user named."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fimaq_deploy import report as r
from fimaq_deploy.report.page.markdown import escaped, page_markdown
from fimaq_deploy.report.page.parts import Exhibit, Page, Section

Make = Callable[..., r.Report]


def test_markdown_says_it_all(small_report: Make) -> None:
    text = r.to_markdown(small_report())
    for expected in (
        "# swin_digits, w8a8",
        "| ONNX Runtime | 97.50 | 100.00 | 99.50 | 0.81 | 1.25× | 1.0 MB |",
        "| TensorRT-RTX | not run |",
        "TensorRT-RTX: not run: no driver.",
        "| ONNX Runtime | PyTorch FP32 | agree 99.50 % | 0.12 |",
        "| tensorrt-rtx | in 0.5 s | no: no NVIDIA driver |",
        "| blocks.0 | 0.01 | 0.001 | 100 | ceiling | 1.5 |",
        "fimaq-deploy build --model swin_digits",
    ):
        assert expected in text


def test_markdown_tables_are_whole(small_report: Make) -> None:
    blocks = r.to_markdown(small_report()).split("\n\n")
    tables = [block.splitlines() for block in blocks if block.startswith("| ")]
    assert len(tables) == 8
    assert all(len({line.count("|") for line in table}) == 1 for table in tables)


@pytest.mark.parametrize(
    "name", ["a|b", "`code`", "line\nbreak", "<img src=x>", "[x](http://y)", "*b*", "_i_", "&lt;b&gt;", "~~s~~", "a\\"]
)
def test_what_a_user_named_is_only_text_in_markdown(small_report: Make, name: str) -> None:
    """Read back by a parser of Markdown where there is one, and the tables stay whole in any case."""
    report = small_report()
    model, rows = report.model.model_copy(update={"name": name}), [report.rows[0].model_copy(update={"title": name})]
    text = r.to_markdown(report.model_copy(update={"model": model, "rows": [*rows, *report.rows[1:]]}))
    assert text.startswith(f"# {escaped(name)}, w8a8\n")
    tables = [block.splitlines() for block in text.split("\n\n") if block.startswith("| ")]
    assert all(len({len(re.findall(r"(?<!\\)\|", line)) for line in table}) == 1 for table in tables)
    markdown_it = pytest.importorskip("markdown_it")
    (shown,) = (token.content for token in markdown_it.MarkdownIt().parseInline(escaped(name))[0].children or [])
    assert shown == " ".join(name.split())


SIGNS = [
    "|",
    "*",
    "_",
    "__",
    "<b>",
    "</details>",
    "`",
    "``",
    "\\",
    "[",
    "](u)",
    "![",
    "#",
    "##",
    "- ",
    "-",
    "+ ",
    "1. ",
    "2)",
    "=",
]
SIGNS += [
    "===",
    "---",
    "> ",
    "~~",
    "~",
    "&amp;",
    "&#1;",
    "&",
    ";",
    "$",
    "\n",
    "\r\n",
    "\t",
    " ",
    ":",
    "a",
    "Z9",
    "é",
    "<!--",
    "-->",
    "\x0b",
]
names = st.lists(st.sampled_from(SIGNS), min_size=1, max_size=7).map("".join).filter(lambda name: name.strip())


@settings(max_examples=400, deadline=None)
@given(names)
def test_any_name_at_all_is_its_own_text_wherever_it_stands(name: str) -> None:
    """As a heading, a reason, a sentence and a cell, read back by a parser of Markdown."""
    markdown_it = pytest.importorskip("markdown_it")
    exhibit = Exhibit("found", name, name, ("name", "ms"), ((name, "1.5"),))
    section = Section("one", name, name, (exhibit,))
    told = page_markdown(Page("Any", name, "Good", name, "today", "make it", reasons=(name,), sections=(section,)))
    shown = [
        "".join(child.content for child in token.children)
        for token in markdown_it.MarkdownIt().enable(["table", "strikethrough"]).parse(told)
        if token.type == "inline"
    ]
    own = " ".join(name.split())
    assert shown == [own, f"Good. {own}", own, own, own, f"{own}. {own}", "name", "ms", own, "1.5", "Reproduce"]


def test_a_command_cannot_end_its_block(small_report: Make) -> None:
    text = r.to_markdown(small_report().model_copy(update={"command": "a ```\n# b"}))
    assert text.endswith("````bash\na ```\n# b\n````\n")


def page(rows: int) -> Page:
    lines = tuple((f"row {number}", f"{number}.5") for number in range(rows))
    exhibit = Exhibit("found", "A finding", "How to read it.", ("name", "ms"), lines)
    section = Section("one", "One", "About it.", (exhibit,))
    return Page("Any", "A page", "Good", "All is well.", "today", "make it", reasons=("a reason",), sections=(section,))


def test_any_page_is_text_in_this_order() -> None:
    assert page_markdown(page(1)) == (
        "# A page\n\n**Good.** All is well.\n\n- a reason\n\n## One\n\nAbout it.\n\n**A finding.** How to read it.\n\n"
        "| name | ms |\n| --- | ---: |\n| row 0 | 0.5 |\n\n## Reproduce\n\n```bash\nmake it\n```\n"
    )


@pytest.mark.parametrize(("rows", "folded"), [(12, False), (13, True)])
def test_a_table_longer_than_a_screen_is_folded(rows: int, folded: bool) -> None:
    text = page_markdown(page(rows))
    assert (f"<details><summary>{rows} rows</summary>\n\n| name | ms |" in text) == folded
    assert text.count("| row ") == rows
