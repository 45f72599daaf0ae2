"""Pictures of the original and of what is deployed, one above the other."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
from PIL import Image

from fimaq_deploy import report as r
from fimaq_deploy.report.build_page.sections.pictures import pictures
from fimaq_deploy.report.page.canvas import draw
from fimaq_deploy.report.schema import Answer, Object, Picture


def encoded(pixels: Any, kind: str) -> str:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, kind)
    return base64.b64encode(stream.getvalue()).decode()


def picture(*rows: str, maps: bool = False) -> Picture:
    classes = encoded(np.arange(64, dtype=np.uint8).reshape(8, 8) % 3, "PNG") if maps else None
    ring = Object(box=[1, 2, 5, 6], label="ring", score=0.987)
    return Picture(
        image=encoded(np.zeros((8, 8, 3), np.uint8), "JPEG"),
        width=8,
        height=8,
        answers=[
            Answer(row=row, objects=[] if maps or number else [ring], classes=classes)
            for number, row in enumerate(rows)
        ],
    )


def shown(report: r.Report, *found: Picture) -> Any:
    return pictures(report.model_copy(update={"pictures": list(found)})).exhibits


def test_the_original_stands_above_what_is_deployed(full_report: r.Report) -> None:
    ids = [row.id for row in full_report.rows if row.not_run is None]
    (exhibit,) = shown(full_report, picture(*ids), picture(*ids))
    deployed = full_report.deployed[0]
    assert exhibit.header == ("picture", full_report.baseline.title, deployed.title)
    assert exhibit.rows[0] == ("1", "ring 99 %", "nothing")
    svg = draw(exhibit.paint, "pictures", exhibit.title, exhibit.height)
    assert svg.count("<image") == 1
    assert svg.count("ring 0.99") == 2


def test_maps_lie_over_their_images(full_report: r.Report) -> None:
    (exhibit,) = shown(full_report, picture("pytorch-fp32", full_report.deployed[0].id, maps=True))
    assert exhibit.rows == ()
    assert draw(exhibit.paint, "pictures", exhibit.title, exhibit.height).count("<image") == 1


def test_nothing_is_shown_of_one_row_alone(full_report: r.Report) -> None:
    assert shown(full_report, picture(full_report.baseline.id)) == ()
    assert shown(full_report) == ()
