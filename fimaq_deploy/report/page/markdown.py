"""`report.md`: the page as text for a pull request."""

from __future__ import annotations

import re
from collections.abc import Sequence

from fimaq_deploy.report.build_page.sections import report_page
from fimaq_deploy.report.page.parts import Exhibit, Page, Section
from fimaq_deploy.report.schema import Report

_LONG = 12


def to_markdown(report: Report) -> str:
    """The text of one build: verdict, every section of the page, and the command that reproduces it."""
    return page_markdown(report_page(report))


def page_markdown(page: Page) -> str:
    """Any page as Markdown. Tables that are longer than a screen are folded."""
    parts = (
        f"# {escaped(page.heading)}",
        f"**{escaped(page.status)}.** {escaped(page.headline)}",
        "\n".join(f"- {_begun(reason)}" for reason in page.reasons),
        *(_section(section) for section in page.sections),
        f"## Reproduce\n\n{_code(page.command)}",
    )
    return "\n\n".join(part for part in parts if part) + "\n"


def _section(section: Section) -> str:
    parts = (
        f"## {escaped(section.title)}",
        _begun(section.text),
        *(_exhibit(exhibit) for exhibit in section.exhibits),
    )
    return "\n\n".join(part for part in parts if part)


def _exhibit(exhibit: Exhibit) -> str:
    table = _table(exhibit) if exhibit.rows else ""
    if len(exhibit.rows) > _LONG:
        table = f"<details><summary>{len(exhibit.rows)} rows</summary>\n\n{table}\n\n</details>"
    title = f"**{escaped(exhibit.title)}.**" if exhibit.title else ""
    note = f"{title} {escaped(exhibit.note)}".strip() if title else _begun(exhibit.note)
    return "\n\n".join(part for part in (note, table) if part)


def _table(exhibit: Exhibit) -> str:
    rule = f"| {' | '.join('---:' if figures else '---' for figures in exhibit.figures)} |"
    return "\n".join((_line(exhibit.header), rule, *(_line(cells) for cells in exhibit.rows)))


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(escaped(cell) for cell in cells)} |"


def escaped(text: str) -> str:
    """Text of which nothing is read as markup, HTML or another cell, in one line: users name models and folders."""
    one_line = " ".join(text.split())
    signs = re.sub(r"([\\`*\[\]<>|~$])", r"\\\1", one_line)
    entities = re.sub(r"&(?=#?\w+;)", "&amp;", signs)
    lines = re.sub(r"(?<![^\W_])_|_(?![^\W_])", r"\_", entities)
    return re.sub(r"#(?=#*$)", r"\#", lines)  # what closes a heading


def _begun(text: str) -> str:
    """`escaped`, where a line begins with it: no list, heading or rule begins there."""
    return re.sub(r"^(?=[-+=#])|^(?P<number>\d+)(?=[.)](?: |$))", r"\g<number>\\", escaped(text))


def _code(command: str) -> str:
    """A block that the command cannot end: its fence is longer than any in it."""
    longest = max((len(ticks) for ticks in re.findall("`+", command)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}bash\n{command}\n{fence}"
