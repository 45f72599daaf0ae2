"""What refuses an engine before a GPU is asked. Running one needs a GPU, so that is not tested here."""

from __future__ import annotations

from pathlib import Path

import pytest

from fimaq_deploy.engines.refusals import Here
from fimaq_deploy.engines.tensorrt_library import RTX, bind, not_runnable
from fimaq_deploy.engines.tensorrt_load import _refusal, load_tensorrt
from fimaq_deploy.errors import UserError

pytest.importorskip("tensorrt_rtx")
HERE = Here("tensorrt-rtx", "1.7.1", "NVIDIA GeForce RTX 4090", (8, 9))


def test_a_file_that_is_no_engine_is_told_from_its_header() -> None:
    assert _refusal(bind(RTX), b"no engine" * 100, HERE) == "it is damaged, or no engine of tensorrt-rtx 1.7.1"


@pytest.mark.skipif(not_runnable("tensorrt-rtx") is None, reason="a GPU is here")
def test_without_a_gpu_that_is_what_is_said(tmp_path: Path) -> None:
    reason = not_runnable("tensorrt-rtx") or ""
    with pytest.raises(UserError) as caught:
        load_tensorrt(tmp_path / "model.engine", "tensorrt-rtx")
    assert str(caught.value) == f"tensorrt-rtx cannot run {tmp_path / 'model.engine'}: {reason}"
