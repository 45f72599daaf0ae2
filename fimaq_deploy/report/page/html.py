"""`report.html`: one self-contained file, without scripts, that a browser opens from disk."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from fimaq_deploy.report.build_page.sections import report_page
from fimaq_deploy.report.page.canvas import draw
from fimaq_deploy.report.page.parts import Exhibit, Page, Panel
from fimaq_deploy.report.schema import Report
from fimaq_deploy.version import __version__

if TYPE_CHECKING:
    from markupsafe import Markup


def to_html(report: Report) -> str:
    """The page of one build."""
    return render(report_page(report), "report.html.j2")


def render(page: Page, template: str = "base.html.j2", **more: Any) -> str:
    """A page through one of the templates beside this file, its charts drawn.

    more: what the template needs beyond the page.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("fimaq_deploy.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(chart=_chart, panel=_panel, tie=_tie)
    return environment.get_template(template).render(page=page, version=__version__, **more) + "\n"


def _chart(exhibit: Exhibit) -> Markup:
    from markupsafe import Markup

    assert exhibit.paint is not None
    return Markup(draw(exhibit.paint, exhibit.id, exhibit.title, exhibit.height))


def _panel(panel: Panel, exhibit: Exhibit, number: int) -> Markup:
    from markupsafe import Markup

    return Markup(draw(panel.paint, f"{exhibit.id}-{number}", panel.title, panel.height))


def _tie(text: str) -> str:
    """Numbers stay on one line with their units, "p" with its number, and "top-1" with its 1."""
    tied = re.sub(r"(?<=\d) (?=(?:%|ms|s|[kM]B|points?|images?)(?!\w))|(?<=\bp) (?== )|(?<=\bp =) ", "\u00a0", text)
    return tied.replace("top-", "top\u2011")
