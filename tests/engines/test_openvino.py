from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fimaq_deploy.engines import load_engine
from fimaq_deploy.errors import UserError

pytest.importorskip("openvino")


def test_any_batch_size_is_run(model_path: Path, batch: np.ndarray, expected: np.ndarray) -> None:
    runner = load_engine(model_path, "openvino-cpu", threads=1)
    assert (runner.name, runner.input_shape) == ("openvino-cpu", (None, 1, 4, 4))
    for size in (3, 1):
        np.testing.assert_allclose(runner(batch[:size]), expected[:size], atol=2e-2)


def test_results_outlive_the_next_call(model_path: Path, batch: np.ndarray) -> None:
    runner = load_engine(model_path, "openvino-cpu", threads=1)
    first = runner(batch)
    kept = first.copy()
    runner(batch[::-1].copy())
    np.testing.assert_array_equal(first, kept)


def test_every_output_has_its_name(model_path: Path, batch: np.ndarray) -> None:
    runner = load_engine(model_path, "openvino-cpu", threads=1)
    found = runner.outputs(batch)
    assert list(found) == ["logits"]
    np.testing.assert_array_equal(found["logits"], runner(batch))


def test_files_that_cannot_be_loaded_are_user_errors(tmp_path: Path) -> None:
    (tmp_path / "text.onnx").write_text("not a model")
    with pytest.raises(UserError, match="not a model that OpenVINO loads") as caught:
        load_engine(tmp_path / "text.onnx", "openvino-cpu")
    assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match="no ONNX file"):
        load_engine(tmp_path / "none.onnx", "openvino-cpu")
