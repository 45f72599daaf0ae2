from __future__ import annotations

from pathlib import Path

import numpy as np
from fixtures.bare_onnx import write_bare

from fimaq_deploy.graph_calibration.given import Given
from fimaq_deploy.graph_calibration.intake import read_network


def test_a_file_for_one_batch_size_runs_on_any_number_of_images(bare_images: np.ndarray, tmp_path: Path) -> None:
    fixed, free = (write_bare(tmp_path / f"{batch}.onnx", batch=batch) for batch in (2, None))
    found, wanted = (Given(read_network(path))(bare_images[:5])["scores"] for path in (fixed, free))
    assert found.shape == (5, 20) and np.abs(found - wanted).max() < 1e-5


def test_half_precision_comes_out_as_float32(bare_images: np.ndarray, tmp_path: Path) -> None:
    scores = Given(read_network(write_bare(tmp_path / "own.onnx", half=True)))(bare_images)["scores"]
    assert scores.dtype == np.float32
