"""A judgement as JUnit XML, which CI servers show as tests: each figure of each row is one."""

from __future__ import annotations

import re
from xml.etree import ElementTree
from xml.etree.ElementTree import Element, SubElement

from fimaq_deploy.report.comparison.records import Comparison, Difference, Judgement
from fimaq_deploy.report.comparison.words import cells, figure_text, sentence

_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def to_junit(judgement: Judgement) -> str:
    """One suite a baseline, and one before them of what the new build breaks by itself.

    A figure beyond its threshold is a failure, a threshold that could not be judged an error, and a figure that no
    threshold was set for is skipped.
    """
    root = Element("testsuites", name=_text(f"fimaq-deploy compare {judgement.new}"))
    if judgement.broken:
        _add_broken(root, judgement)
    for comparison in judgement.comparisons:
        _add_suite(root, comparison, judgement)
    for level in ("tests", "failures", "errors"):
        root.set(level, str(sum(int(suite.get(level, "0")) for suite in root)))
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def _add_suite(root: Element, comparison: Comparison, judgement: Judgement) -> None:
    suite = SubElement(root, "testsuite", name=_text(f"{judgement.model} against {comparison.baseline}"))
    for difference in comparison.differences:
        _add_figure(suite, comparison, difference, judgement.model)
    told = {sentence(d, comparison.baseline) for d in comparison.differences if d.verdict == "regression"}
    for refused in (text for text in comparison.regressions if text not in told):
        _add_outcome(_add_case(suite, judgement.model, "compiler"), "failure", refused)
    for obstacle in comparison.obstacles:
        _add_outcome(_add_case(suite, judgement.model, obstacle.partition(" ")[0]), "error", obstacle)
    _count(suite)


def _add_broken(root: Element, judgement: Judgement) -> None:
    suite = SubElement(root, "testsuite", name=_text(f"{judgement.model} against its original"))
    for text in judgement.broken:
        _add_outcome(_add_case(suite, judgement.model, "the original"), "failure", text)
    _count(suite)


def _count(suite: Element) -> None:
    counted = {"tests": "testcase", "failures": "*/failure", "errors": "*/error", "skipped": "*/skipped"}
    for name, path in counted.items():
        suite.set(name, str(len(suite.findall(path))))
    suite.set("time", "0")


def _add_figure(suite: Element, comparison: Comparison, difference: Difference, model: str) -> None:
    case = _add_case(suite, f"{model}.{difference.title}", figure_text(difference))
    if difference.verdict == "regression":
        _add_outcome(case, "failure", sentence(difference, comparison.baseline))
    elif difference.limit is None:
        _add_outcome(case, "skipped", "no threshold")
    SubElement(case, "system-out").text = _text(" | ".join(cells(difference)))


def _add_case(suite: Element, group: str, name: str) -> Element:
    return SubElement(suite, "testcase", classname=_text(group), name=_text(name), time="0")


def _add_outcome(case: Element, kind: str, message: str) -> None:
    SubElement(case, kind, message=_text(message))


def _text(text: str) -> str:
    """Without the characters that XML cannot hold, which a path may."""
    return _NOT_XML.sub("\ufffd", text)
