"""A report with anything in the place of one of its values is compared, drawn, or refused in one line."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fimaq_deploy.errors import UserError
from fimaq_deploy.report import Report
from fimaq_deploy.report.comparison.judge import compare
from fimaq_deploy.report.comparison.page import write_comparison
from fimaq_deploy.report.timeline.records import history

numbers = [0, -1, 1, 10**400, -(2**70), 0.0, -0.5, 1e308, 5e-324, float("nan"), float("inf"), float("-inf")]
others = [None, True, "", "a", "\ud800", "\0", "]]>", "<b>", "a|b\n# c", "2026", [], {}, [1], {"a": 1}]
anything = st.sampled_from(numbers) | st.sampled_from(others)


def leaves(found: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of every value in a document."""
    inner = found.items() if isinstance(found, dict) else enumerate(found) if isinstance(found, list) else ()
    yield path
    for key, value in inner:
        yield from leaves(value, (*path, key))


@pytest.mark.slow
def test_any_value_anywhere_is_taken_or_refused_in_one_line(full_report: Report, tmp_path: Path) -> None:
    whole = json.loads(full_report.to_json())
    paths = [path for path in leaves(whole) if path]
    (tmp_path / "old").mkdir()
    (tmp_path / "new").mkdir()
    (tmp_path / "old" / "report.json").write_text(json.dumps(whole))

    @settings(max_examples=1500, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.sampled_from(paths), anything)
    def check(path: tuple[Any, ...], value: Any) -> None:
        document = copy.deepcopy(whole)
        place = document
        for key in path[:-1]:
            place = place[key]
        place[path[-1]] = value
        (tmp_path / "new" / "report.json").write_text(json.dumps(document))
        is_done_or_refused(compared, tmp_path)
        is_done_or_refused(followed, tmp_path)

    check()


def is_done_or_refused(reads: Callable[[Path], None], folder: Path) -> None:
    try:
        reads(folder)
    except UserError as error:
        assert "\n" not in str(error) and len(str(error)) < 1200


def compared(folder: Path) -> None:
    judged = compare(folder / "new", [folder / "old"], max_drop=1, max_slowdown=5, max_growth=5)
    write_comparison(judged, markdown=folder / "a.md", junit=folder / "a.xml")
    if (folder / "a.xml").exists():
        ElementTree.parse(folder / "a.xml")
    assert judged.exit_code in (0, 1, 2)


def followed(folder: Path) -> None:
    found = history([folder / "new", folder / "old"])
    assert found.builds == 2 and json.dumps(found.document())
