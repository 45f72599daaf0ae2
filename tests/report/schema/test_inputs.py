from __future__ import annotations

import pytest
from pydantic import ValidationError

from fimaq_deploy import report as r


def test_an_input_has_channels_height_and_width() -> None:
    fields = {"name": "m", "weights": "random", "classes": 10, "parameters": 5}
    assert r.Model.model_validate({**fields, "input_shape": [3, 32, 48]}).input_shape == (3, 32, 48)
    with pytest.raises(ValidationError, match="input_shape"):
        r.Model.model_validate({**fields, "input_shape": [32, 48]})


def test_reports_without_notes_of_their_data_are_read() -> None:
    told = {"calibration": "a", "calibration_images": 1, "evaluation": "b", "evaluation_images": 2, "labelled": False}
    assert r.Data.model_validate(told).notes == []
