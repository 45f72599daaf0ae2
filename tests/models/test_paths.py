from __future__ import annotations

import os
from pathlib import Path

import pytest

from fimaq_deploy.errors import UserError
from fimaq_deploy.models.paths import kind_of


def test_what_lies_there(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    (tmp_path / "link").symlink_to(tmp_path)
    (tmp_path / "dangling").symlink_to(tmp_path / "nothing")
    os.mkfifo(tmp_path / "pipe")
    assert [kind_of(path) for path in (file, tmp_path / "pipe", "/dev/null")] == ["file"] * 3
    assert [kind_of(path) for path in (tmp_path, str(tmp_path), tmp_path / "link")] == ["folder"] * 3
    assert [kind_of(tmp_path / name) for name in ("nothing", "dangling", "file/inside", "a\0b")] == [None] * 4


def test_what_cannot_be_looked_at_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "round").symlink_to(tmp_path / "round")
    for path in ("", "x" * 5000, tmp_path / "round"):
        with pytest.raises(UserError) as raised:
            kind_of(path)
        assert "\n" not in str(raised.value) and len(str(raised.value)) < 400
