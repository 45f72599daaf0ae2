from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from fimaq_deploy.engines import availability, load_engine
from fimaq_deploy.errors import UserError
from fimaq_deploy.target import TARGETS


@pytest.mark.parametrize("target", TARGETS)
def test_availability_is_a_reason_or_none(target):
    build, run = availability(target)
    assert build is None or "\n" not in build
    assert run is None or "\n" not in run
    assert run or not build, "what cannot be built here cannot be run here"


def test_onnxruntime_on_the_cpu_is_always_there():
    assert availability("onnxruntime-cpu") == (None, None)


def test_kinds_that_nobody_reads_are_refused(tmp_path, model_path):
    with pytest.raises(UserError, match=r"neither a .onnx nor a .engine"):
        load_engine(tmp_path / "model.pt")
    with pytest.raises(UserError, match="unknown target"):
        load_engine(model_path, "tensort")


def test_engines_load_without_torch(model_path):
    load = f"import sys; from fimaq_deploy.engines import load_engine; load_engine({str(model_path)!r})"
    subprocess.run([sys.executable, "-c", f"{load}; assert 'torch' not in sys.modules"], check=True)


def test_openvino_runs_any_batch_size(model_path, batch, expected):
    pytest.importorskip("openvino")
    runner = load_engine(model_path, "openvino-cpu", threads=1)
    for size in (3, 1):
        np.testing.assert_allclose(runner(batch[:size]), expected[:size], atol=2e-2)
