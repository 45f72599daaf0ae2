"""What learning did, as a reader is told."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from fimaq_deploy import report as r
from fimaq_deploy.report.build_page.sections.reconstruction import reconstruction
from fimaq_deploy.report.page.parts import Exhibit

Make = Callable[..., r.Report]


@pytest.mark.parametrize(("before", "after", "told"), [(0.3, 0.1, "by a factor of 3"), (1.1, 1.0, "by 9 %")])
def test_learning_is_told_as_it_was(small_report: Make, before: float, after: float, told: str) -> None:
    block = r.Block(name="a", loss_before=before, loss_after=after, iterations=9, seconds=1)
    assert f"every block, {told} in the median" in r.to_markdown(small_report().model_copy(update={"blocks": [block]}))


def test_learning_of_nothing_is_not_a_factor_of_one(small_report: Make) -> None:
    block = r.Block(name="a", loss_before=1.001, loss_after=1.0, iterations=9, seconds=1)
    text = r.to_markdown(small_report().model_copy(update={"blocks": [block]}))
    assert "by less than 1 %" in text and "factor" not in text


def shown(report: r.Report) -> dict[str, Exhibit]:
    return {exhibit.id: exhibit for exhibit in reconstruction(report).exhibits}


def test_errors_of_zero_have_no_place_on_a_logarithm(full_report: r.Report) -> None:
    block = full_report.blocks[0].model_copy(update={"loss_after": 0.0, "curve": [(0, 0.0), (1, 0.0)]})
    found = shown(full_report.model_copy(update={"blocks": [block]}))
    assert found["block-errors"].paint is None
    assert "convergence" not in found


def test_the_slowest_block_is_named(full_report: r.Report) -> None:
    curves = {"fast": [(0, 4.0), (1, 1.0)], "slow": [(0, 4.0), (1, 3.0)], "between": [(0, 4.0), (1, 2.0)]}
    blocks = [full_report.blocks[0].model_copy(update={"name": name, "curve": c}) for name, c in curves.items()]
    exhibit = shown(full_report.model_copy(update={"blocks": blocks}))["convergence"]
    assert exhibit.title == "Learning took the error of a block to 0.5 of its first value in the median"
    assert exhibit.note.endswith("slow ended at 0.75.")
    assert exhibit.rows[0] == ("fast", "4", "1", "0.25")


@pytest.mark.parametrize(
    ("last", "told"), [(2.0, "raised the error of a block by 100 %"), (1.001, "by less than 1 % in the median")]
)
def test_learning_that_did_not_help_is_told(full_report: r.Report, last: float, told: str) -> None:
    block = full_report.blocks[0].model_copy(update={"curve": [(0, 1.0), (1, last)]})
    assert told in shown(full_report.model_copy(update={"blocks": [block]}))["convergence"].title


def test_some_none_and_not_learned_blocks(full_report: r.Report) -> None:
    better, worse = full_report.blocks[0], full_report.blocks[1].model_copy(update={"loss_before": 1e-9})
    idle = better.model_copy(update={"iterations": 0})
    tuning = better.model_copy(update={"name": "joint tuning"})

    def title(*blocks: r.Block) -> str:
        return shown(full_report.model_copy(update={"blocks": list(blocks)}))["block-errors"].title

    assert title(better, worse).startswith("Learning lowered the error of 1 of 2 blocks")
    assert title(worse) == "Learning lowered the error of no block"
    assert title(idle, tuning) == "No block was learned: these are the errors of the initial scales"
    assert reconstruction(full_report.model_copy(update={"blocks": []})).exhibits == ()
    tuned = full_report.model_copy(update={"blocks": [better, tuning.model_copy(update={"iterations": 1200})]})
    assert reconstruction(tuned).text.endswith("Here it took 1,200 iterations.")
    assert reconstruction(full_report.model_copy(update={"blocks": [better]})).text.endswith("Here there was none.")
