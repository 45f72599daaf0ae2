from __future__ import annotations

import json
import os
import threading
from pathlib import Path

import pytest
from fixtures.commands import refused, run
from typer.main import get_command

from fimaq_deploy.cli import app
from fimaq_deploy.cli.options import write_document
from fimaq_deploy.errors import UserError


def test_nothing_is_written_where_nothing_was_asked(capsys: pytest.CaptureFixture[str]) -> None:
    assert write_document(None, {"a": 1}) is False
    assert capsys.readouterr().out == ""


def test_a_hyphen_takes_standard_output(capsys: pytest.CaptureFixture[str]) -> None:
    assert write_document("-", {"a": "[bold]" + "x" * 300}) is True
    assert json.loads(capsys.readouterr().out) == {"a": "[bold]" + "x" * 300}


def test_a_file_is_written_beside_the_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("recipes", "--json", tmp_path / "new" / "recipes.json") == 0
    assert "w8a8" in capsys.readouterr().out
    assert json.loads((tmp_path / "new" / "recipes.json").read_text())["schema"] == "fimaq-deploy/recipes/1"


def test_a_device_stays_one_and_a_full_one_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("recipes", "--json", "/dev/null") == 0
    assert Path("/dev/null").is_char_device()
    capsys.readouterr()
    with pytest.raises(UserError, match="cannot write /dev/full"):
        write_document("/dev/full", {"a": 1})
    assert Path("/dev/full").is_char_device()


def test_a_pipe_is_written_into(tmp_path: Path) -> None:
    pipe, read = tmp_path / "pipe", []
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: read.append(pipe.read_text()))
    reader.start()
    write_document(str(pipe), {"a": 1})
    reader.join(10)
    assert json.loads(read[0]) == {"a": 1}
    assert pipe.is_fifo()


def test_a_folder_cannot_be_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("recipes", "--json", tmp_path) == 2
    assert f"cannot write {tmp_path}" in capsys.readouterr().err


@pytest.mark.parametrize("name", sorted({*get_command(app).commands} - {"serve"}))  # type: ignore[attr-defined]
def test_every_command_tells_programs_too(name: str) -> None:
    command = get_command(app).commands[name]  # type: ignore[attr-defined]
    options = {option: one for one in command.params for option in one.opts}
    assert "--json" in options


def test_no_command_has_another_word_for_the_yardstick() -> None:
    for name, command in get_command(app).commands.items():  # type: ignore[attr-defined]
        shown = {option for one in command.params for option in one.opts if not getattr(one, "hidden", False)}
        assert "--twin" not in shown, name


def test_an_unknown_option_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert "--jsn" in refused(capsys, "doctor", "--jsn", "-")
