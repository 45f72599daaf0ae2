from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from fixtures.commands import run

from fimaq_deploy.version import __version__

ROOT = Path(__file__).parents[2]


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--version") == 0
    assert capsys.readouterr().out.strip() == __version__


def test_a_module_runs_as_the_command() -> None:
    done = subprocess.run([sys.executable, "-m", "fimaq_deploy", "--version"], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.strip() == __version__
