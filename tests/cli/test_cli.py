from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from fimaq_deploy.cli import main
from fimaq_deploy.version import __version__

ROOT = Path(__file__).parents[2]


def run(*arguments: str | Path) -> int:
    """The exit code of one command."""
    with pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    code = ended.value.code
    return code if isinstance(code, int) else 0


def expect_error(capsys: pytest.CaptureFixture[str], message: str, *arguments: str | Path) -> None:
    """The command ends with exit code 2 and one line on stderr that holds the message."""
    assert run(*arguments) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    assert message in lines[0]


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--version") == 0
    assert capsys.readouterr().out.strip() == __version__


def test_a_module_runs_as_the_command() -> None:
    done = subprocess.run([sys.executable, "-m", "fimaq_deploy", "--version"], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.strip() == __version__
