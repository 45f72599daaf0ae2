"""The machine and the software, found without loading a framework."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from importlib.metadata import version

import pytest

from fimaq_deploy.engines.machine import PACKAGES, describe_environment, package_versions


def test_versions_are_those_of_the_installed_distributions() -> None:
    assert package_versions(["numpy", "onnx"]) == {"numpy": version("numpy"), "onnx": version("onnx")}


def test_what_is_not_installed_is_left_out_and_twice_is_once() -> None:
    assert list(package_versions(["numpy", "no-such-distribution-here", "numpy"])) == ["numpy"]
    assert package_versions([]) == {}


def test_each_runtime_adds_its_own_packages() -> None:
    found = describe_environment(["pytest"]).packages
    assert found == package_versions((*PACKAGES, "pytest"))
    assert "pytest" in found
    assert "pytest" not in describe_environment().packages


def test_the_machine_is_the_one_that_this_runs_on() -> None:
    found = describe_environment()
    assert (found.cores, found.python) == (os.cpu_count(), platform.python_version())
    assert found.platform == platform.platform()
    assert found.cpu and found.cpu == found.cpu.strip()


def test_without_nvidias_tool_there_is_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    found = describe_environment()
    assert (found.gpu, found.driver) == (None, None)


def test_no_framework_is_loaded_for_it() -> None:
    code = (
        "import sys; from fimaq_deploy.engines.machine import describe_environment; describe_environment(); "
        "print([name for name in ('torch', 'timm', 'onnx', 'onnxscript', 'pydantic', 'yaml') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
