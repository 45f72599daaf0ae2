"""How tensors fill their grids: the emptiest and the most clipped are named."""

from __future__ import annotations

import pytest

from fimaq_deploy import report as r
from fimaq_deploy.report.build_page.sections.grids import grids


def grid(name: str, used: int, clipped: float, kind: str = "weight") -> r.GridUse:
    fields = {"name": name, "kind": kind, "bits": 4, "used_levels": used, "levels": 15, "clipped": clipped}
    return r.GridUse.model_validate(fields)


@pytest.fixture
def found(full_report: r.Report) -> r.Report:
    three = [grid("a", 15, 0.0), grid("b", 3, 0.125, "activation"), grid("c", 12, 2.5)]
    return full_report.model_copy(update={"grids": three})


def test_the_emptiest_grid_and_the_most_clipped_tensor_are_the_titles(found: r.Report) -> None:
    use, clipping = grids(found).exhibits
    assert use.title == "The activation of b uses the fewest of its integers: 3 of 15"
    assert clipping.title == "The weight of c clips the most: 2.5 % of its values"


def test_every_tensor_is_a_line_of_the_table(found: r.Report) -> None:
    use, _ = grids(found).exhibits
    assert use.rows == (
        ("a", "weight", "4", "15 of 15", "100", "0", ""),
        ("b", "activation", "4", "3 of 15", "20", "0.12", ""),
        ("c", "weight", "4", "12 of 15", "80", "2.5", ""),
    )


def test_what_evaluation_images_clip_stands_beside_what_calibration_images_do(found: r.Report) -> None:
    two = [grid("a", 15, 1.0, "activation"), grid("b", 9, 0.5, "activation")]
    seen = [one.model_copy(update={"evaluated": share}) for one, share in zip(two, (1.5, 8.5), strict=True)]
    use, clipping = grids(found.model_copy(update={"grids": seen})).exhibits
    assert [row[-1] for row in use.rows] == ["1.5", "8.5"]
    assert "5 % are clipped on evaluation images and 0.75 % on calibration images" in clipping.note
    assert "those of b, 8.5 and 0.5 %" in clipping.note


def test_no_clipping_is_told(found: r.Report) -> None:
    whole = found.model_copy(update={"grids": [grid("a", 15, 0.0), grid("b", 9, 0.0)]})
    assert grids(whole).exhibits[1].title == "No value is clipped"


def test_without_grids_there_is_nothing_to_show(found: r.Report) -> None:
    assert grids(found.model_copy(update={"grids": []})).exhibits == ()
