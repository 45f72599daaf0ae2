from __future__ import annotations

import pytest
from pydantic import ValidationError

from fimaq_deploy import report as r
from fimaq_deploy.report.schema.rows import Answer, Figure, Meaning


@pytest.mark.parametrize(
    ("row_id", "precision"),
    [("pytorch-fp32", "FP32"), ("tensorrt-fp16", "FP16"), ("tensorrt-bf16", "BF16"), ("tensorrt", "quantized")],
)
def test_the_id_of_a_row_tells_its_precision(row_id: str, precision: str) -> None:
    assert r.Row(id=row_id, title="").precision == precision


def test_a_row_that_was_not_run_holds_no_measurement() -> None:
    row = r.Row(id="tensorrt", title="TensorRT", not_run="no GPU")
    assert (row.accuracy, row.comparison, row.original, row.latency, row.labelled) == (None, None, None, [], [])


def test_an_interval_is_two_numbers() -> None:
    with pytest.raises(ValidationError, match="interval"):
        Figure.model_validate({"name": "top1", "value": 90.0, "interval": [80.0]})


def test_a_figure_is_held_beside_something_that_is_known() -> None:
    with pytest.raises(ValidationError, match="'original', 'labels' or 'user'"):
        Meaning.model_validate({"name": "top1", "title": "top-1", "told": "{value}", "of": "a guess"})


def test_an_answer_may_be_objects_or_maps() -> None:
    answer = Answer.model_validate({"row": "x", "objects": [{"box": [0, 1, 2, 3], "label": "cat", "score": 0.5}]})
    assert answer.objects[0].label == "cat" and answer.classes is answer.masks is None
