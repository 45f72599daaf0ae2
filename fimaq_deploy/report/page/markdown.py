"""`report.md`: the page as text for a pull request."""

from __future__ import annotations

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
        f"# {page.heading}",
        f"**{page.status}.** {page.headline}",
        "\n".join(f"- {reason}" for reason in page.reasons),
        *(_section(section) for section in page.sections),
        f"## Reproduce\n\n```bash\n{page.command}\n```",
    )
    return "\n\n".join(part for part in parts if part) + "\n"


def _section(section: Section) -> str:
    parts = (f"## {section.title}", section.text, *(_exhibit(exhibit) for exhibit in section.exhibits))
    return "\n\n".join(part for part in parts if part)


def _exhibit(exhibit: Exhibit) -> str:
    table = _table(exhibit) if exhibit.rows else ""
    if len(exhibit.rows) > _LONG:
        table = f"<details><summary>{len(exhibit.rows)} rows</summary>\n\n{table}\n\n</details>"
    title = f"**{exhibit.title}.**" if exhibit.title else ""
    return "\n\n".join(part for part in (f"{title} {exhibit.note}".strip(), table) if part)


def _table(exhibit: Exhibit) -> str:
    rule = ["---:" if figures else "---" for figures in exhibit.figures]
    return "\n".join(_line(cells) for cells in (exhibit.header, rule, *exhibit.rows))


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(_escape(cell) for cell in cells)} |"


def _escape(cell: str) -> str:
    return cell.replace("|", "\\|").replace("\n", " ")
