"""A judgement as lines that GitHub's runner, and those that follow it, turn into annotations of a change."""

from __future__ import annotations

from collections.abc import Iterator

from fimaq_deploy.report.comparison.records import Judgement
from fimaq_deploy.report.comparison.words import summary


def to_annotations(judgement: Judgement) -> list[str]:
    """Errors for regressions and for thresholds that could not be judged, warnings for doubts, one notice at last."""
    return list(_lines(judgement))


def _lines(judgement: Judgement) -> Iterator[str]:
    model = judgement.model
    yield from (_line("error", f"{model}: not as the original", text) for text in judgement.broken)
    for comparison in judgement.comparisons:
        yield from (_line("error", f"{model}: regression", text) for text in comparison.regressions)
        yield from (_line("error", f"{model}: not judged", text) for text in comparison.obstacles)
        yield from (_line("warning", f"{model}: perhaps chance", text) for text in comparison.doubts)
    yield _line("notice", "fimaq-deploy compare", summary(judgement))


def _line(level: str, title: str, message: str) -> str:
    return f"::{level} title={_escaped(title, ':,')}::{_escaped(message)}"


def _escaped(text: str, more: str = "") -> str:
    """Percent-encoded where a character would end the line or, in a property, the property."""
    return "".join(f"%{ord(sign):02X}" if sign in f"%\r\n{more}" else sign for sign in text)
