from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fimaq_deploy.errors import UserError
from fimaq_deploy.pipeline import pixels
from fimaq_deploy.pipeline.pixels import PIXELS_ONNX, write_pixels
from fimaq_deploy.runtime.onnx_metadata import contract_in


def test_it_stands_beside_and_says_that_it_was_checked(artifact: Path) -> None:
    note = write_pixels(artifact / "model.onnx")
    assert "are those of model.onnx, in every bit" in note
    found = contract_in(artifact / PIXELS_ONNX)
    assert found is not None and found.pixels


def test_a_file_that_computes_something_else_is_refused(artifact: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pixels, "draw_picture", lambda *_: np.random.randint(0, 256, (20, 30, 3)).astype(np.uint8))
    with pytest.raises(UserError, match="differ by"):
        write_pixels(artifact / "model.onnx")
