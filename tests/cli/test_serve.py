"""How it runs and ends is in tests/serving/test_server.py: a process of its own."""

from __future__ import annotations

from pathlib import Path

import pytest
from fixtures.commands import refused


def test_bad_input_is_one_line(capsys: pytest.CaptureFixture[str], artifact: Path, tmp_path: Path) -> None:
    assert "is not there" in refused(capsys, "serve", tmp_path / "none")
    assert "two builds are called" in refused(capsys, "serve", artifact, artifact)
    assert "--max-mb" in refused(capsys, "serve", artifact, "--max-mb", 0)
    assert "port" in refused(capsys, "serve", artifact, "--port", 70000)
