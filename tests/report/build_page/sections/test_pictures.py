"""Pictures of the original and of what is deployed, side by side."""

from __future__ import annotations

import base64
import io
import re
from typing import Any

import numpy as np
from PIL import Image

from fimaq_deploy import report as r
from fimaq_deploy.report.build_page.sections.pictures import pictures
from fimaq_deploy.report.page.canvas import draw
from fimaq_deploy.report.page.html import to_html
from fimaq_deploy.report.schema import Answer, Object, Picture


def encoded(pixels: Any, kind: str) -> str:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, kind)
    return base64.b64encode(stream.getvalue()).decode()


def picture(*rows: str, maps: bool = False, masks: bool = False) -> Picture:
    whose = np.zeros((8, 8), np.uint8)
    whose[2:6, 1:5] = 1
    classes = encoded(np.arange(64, dtype=np.uint8).reshape(8, 8) % 3, "PNG") if maps else None
    ring = Object(box=[1, 2, 5, 6], label="ring", score=0.987)
    return Picture(
        image=encoded(np.zeros((8, 8, 3), np.uint8), "JPEG"),
        width=8,
        height=8,
        answers=[
            Answer(
                row=row,
                objects=[] if maps or number else [ring],
                classes=classes,
                masks=encoded(whose, "PNG") if masks and not number else None,
            )
            for number, row in enumerate(rows)
        ],
    )


def shown(report: r.Report, *found: Picture) -> Any:
    return pictures(report.model_copy(update={"pictures": list(found)})).exhibits


def drawn(exhibit: Any) -> list[str]:
    return [
        draw(panel.paint, f"{exhibit.id}-{number}", panel.title, panel.height)
        for number, panel in enumerate(exhibit.panels)
    ]


def test_the_original_stands_beside_what_is_deployed(full_report: r.Report) -> None:
    ids = [row.id for row in full_report.rows if row.not_run is None]
    (exhibit,) = shown(full_report, picture(*ids), picture(*ids))
    deployed = full_report.deployed[0]
    assert exhibit.header == ("picture", full_report.baseline.title, deployed.title)
    assert exhibit.rows[0] == ("1", "ring 99 %", "nothing")
    assert [panel.title for panel in exhibit.panels] == [
        f"{title}, picture {number}" for number in (1, 2) for title in (full_report.baseline.title, deployed.title)
    ]
    assert [(svg.count("<image"), svg.count("ring 0.99")) for svg in drawn(exhibit)] == [(1, 1), (1, 0)] * 2
    page = to_html(full_report.model_copy(update={"pictures": [picture(*ids)]}))
    assert page.count('<div class="panel">') == 2
    assert "masks" not in exhibit.note


def test_masks_lie_under_their_boxes(full_report: r.Report) -> None:
    found = picture("pytorch-fp32", full_report.deployed[0].id, masks=True)
    (exhibit,) = shown(full_report, found)
    assert exhibit.note.endswith("and their masks.")
    with_mask, without = drawn(exhibit)
    (bare,) = shown(full_report, picture("pytorch-fp32", full_report.deployed[0].id))
    assert with_mask != drawn(bare)[0]
    assert without == drawn(bare)[1]


def test_an_object_keeps_its_colour_whatever_its_place_in_the_list(full_report: r.Report) -> None:
    boxes = {"ring": [0.0, 0.0, 4.0, 4.0], "star": [4.0, 4.0, 8.0, 8.0]}
    found = picture("pytorch-fp32", full_report.deployed[0].id)

    def painted(*names: str) -> list[str]:
        """The colours of what is deployed, beside a ring and a star."""
        listed = [
            [Object(box=[side + 0.1 for side in boxes[label]], label=label, score=0.9) for label in labels]
            for labels in (("ring", "star"), names)
        ]
        answers = [one.model_copy(update={"objects": has}) for one, has in zip(found.answers, listed, strict=True)]
        (exhibit,) = shown(full_report, found.model_copy(update={"answers": answers}))
        return re.findall(r"stroke: var\(--(series-\d)\)", drawn(exhibit)[1])

    assert painted("ring", "star") == ["series-1", "series-2"]
    assert painted("star", "ring") == ["series-2", "series-1"]
    assert painted("star") == ["series-2"]
    assert painted("star", "star") == ["series-2", "series-1"], "one object of the original is one object"


def test_maps_lie_over_their_images(full_report: r.Report) -> None:
    (exhibit,) = shown(full_report, picture("pytorch-fp32", full_report.deployed[0].id, maps=True))
    assert exhibit.rows == ()
    assert [svg.count("<image") for svg in drawn(exhibit)] == [1, 1]


def test_nothing_is_shown_of_one_row_alone(full_report: r.Report) -> None:
    assert shown(full_report, picture(full_report.baseline.id)) == ()
    assert shown(full_report) == ()
