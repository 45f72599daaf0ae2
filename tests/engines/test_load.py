from __future__ import annotations

import subprocess
import sys

import pytest


def test_engines_load_without_torch(model_path):
    load = f"import sys; from fimaq_deploy.engines import load_engine; load_engine({str(model_path)!r})"
    subprocess.run([sys.executable, "-c", f"{load}; assert 'torch' not in sys.modules"], check=True)


@pytest.mark.parametrize("target", ["onnxruntime-cpu", "openvino-cpu"])
def test_no_runtime_is_imported_before_it_is_used(model_path, target):
    pytest.importorskip("openvino")
    libraries = {"onnxruntime-cpu": "onnxruntime", "openvino-cpu": "openvino"}
    code = (
        "import sys; from fimaq_deploy.engines import load_engine, runtimes\n"
        f"names = {[*libraries.values(), 'polygraphy', 'tensorrt_rtx']}\n"
        "assert not [name for name in names if name in sys.modules]\n"
        f"load_engine({str(model_path)!r}, {target!r})\n"
        f"assert [name for name in names if name in sys.modules] == [{libraries[target]!r}]"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
