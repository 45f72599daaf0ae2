"""What a page shows: which columns hold figures, and tables without what is empty."""

from __future__ import annotations

import pytest

from fimaq_deploy.report.page.parts import Exhibit, compact


@pytest.mark.parametrize(
    ("cells", "figures"),
    [
        (("1.5", "2.5"), True),
        (("+0.1 %", "-3"), True),
        (("−2", "< 5", "≥ 1", "≤ 1"), True),
        (("9.5", "not run"), True),
        (("9.5", "not run", "absent"), False),
        (("9.5", "", ""), True),
        (("a1", "b2"), False),
        (("", ""), False),
        ((), False),
    ],
)
def test_a_column_holds_figures_where_half_of_what_it_says_begins_with_a_number(
    cells: tuple[str, ...], figures: bool
) -> None:
    assert Exhibit("id", "", header=("head",), rows=tuple((cell,) for cell in cells)).figures == [figures]


def test_columns_are_judged_one_by_one() -> None:
    exhibit = Exhibit("id", "", header=("name", "ms"), rows=(("a", "1"), ("b", "2")))
    assert exhibit.figures == [False, True]


def test_compact_leaves_out_columns_that_hold_nothing_and_changes_nothing_else() -> None:
    exhibit = Exhibit("id", "T", "N", ("a", "b", "c"), (("1", "", ""), ("2", "", "x")), marked=(1,), height=99)
    found = compact(exhibit)
    assert (found.header, found.rows) == (("a", "c"), (("1", ""), ("2", "x")))
    assert (found.id, found.title, found.note, found.marked, found.height) == ("id", "T", "N", (1,), 99)
    assert compact(found) == found


def test_compact_of_a_table_without_rows_has_no_columns() -> None:
    assert compact(Exhibit("id", "", header=("a", "b"))).header == ()
