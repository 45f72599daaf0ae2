from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from fimaq_deploy.errors import UserError
from fimaq_deploy.serving.server import create_app, serve


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_command_serves_until_it_is_told_to_stop(artifact: Path, number: int) -> None:
    options = ["--port", "0", "--target", "onnxruntime-cpu"]
    command = [sys.executable, "-m", "fimaq_deploy", "serve", str(artifact), *options]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        lines = iter(process.stderr.readline, "")
        address = next(found[0] for line in lines if (found := re.search(r"http://\S+", line)))
        with urllib.request.urlopen(f"{address}/v2/health/ready", timeout=20) as response:
            assert response.status == 200
        os.kill(process.pid, number)
        assert process.wait(20) == 0


def test_what_cannot_be_served_is_refused(artifact: Path) -> None:
    with pytest.raises(UserError, match="name at least one build"):
        serve([])
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(UserError, match="name another port"):
        serve([artifact], port=taken.getsockname()[1], target="onnxruntime-cpu")
    for host in ("nowhere.invalid", "é" * 200, "192.0.2.1", "a:b"):
        with pytest.raises(UserError, match="name another host"):
            serve([artifact], host=host, port=0, target="onnxruntime-cpu")
    with pytest.raises(UserError, match="port"):
        serve([artifact], port=70000, target="onnxruntime-cpu")
    with pytest.raises(UserError, match="delay"):
        create_app([artifact], delay_ms=-1)


def test_it_says_what_runs(artifact: Path) -> None:
    told: list[str] = []
    create_app([artifact], target="onnxruntime-cpu", tell=told.append)
    assert told == ["tiny: ONNX Runtime CPU runs model.onnx: it was asked for"]


def test_without_its_packages_it_says_what_to_install(artifact: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fimaq_deploy.serving.server.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'fimaq-deploy\[serve\]'"):
        create_app([artifact])
