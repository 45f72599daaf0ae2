"""A lock is held by one, goes away with its block or its process, and says who has it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from fimaq_deploy.errors import UserError
from fimaq_deploy.files.lock import locked

REFUSAL = "busy: {owner} has {braces}"
HOLDER = f"""
import sys
from pathlib import Path
sys.path[:0] = {sys.path!r}
from fimaq_deploy.files.lock import locked
with locked(Path(sys.argv[1]), ""):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / ".place.lock"


def test_it_is_there_with_its_owners_number_and_goes_away_with_the_block(path: Path) -> None:
    with locked(path, REFUSAL):
        assert path.read_text() == str(os.getpid())
    assert not path.exists()


def test_it_goes_away_with_a_block_that_fails(path: Path) -> None:
    with pytest.raises(ZeroDivisionError), locked(path, REFUSAL):
        raise ZeroDivisionError
    assert not path.exists()
    with locked(path, REFUSAL):
        assert path.exists()


def test_a_second_one_is_refused_and_takes_nothing_from_the_first(path: Path) -> None:
    with locked(path, REFUSAL):
        for _ in range(2):
            with pytest.raises(UserError) as raised, locked(path, REFUSAL):
                pytest.fail("held twice")
            assert str(raised.value) == f"busy: process {os.getpid()} has {{braces}}"
        assert path.read_text() == str(os.getpid())


def test_another_thread_of_one_process_is_refused(path: Path) -> None:
    said: list[str] = []

    def ask() -> None:
        try:
            with locked(path, REFUSAL):
                said.append("held twice")
        except UserError as error:
            said.append(str(error))

    with locked(path, REFUSAL):
        thread = threading.Thread(target=ask)
        thread.start()
        thread.join(60)
    assert said == [f"busy: process {os.getpid()} has {{braces}}"]


def test_what_a_killed_process_left_is_no_lock(path: Path) -> None:
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", HOLDER, str(path)], stdin=pipe, stdout=pipe, text=True) as holder:
        assert holder.stdout and holder.stdout.readline() == "held\n"
        with pytest.raises(UserError, match=f"busy: process {holder.pid} has"), locked(path, REFUSAL):
            pytest.fail("held twice")
        holder.send_signal(signal.SIGKILL)
    assert path.read_text() == str(holder.pid)
    with locked(path, REFUSAL):
        assert path.read_text() == str(os.getpid())


@pytest.mark.parametrize("text", ["", "somebody", "12 34", "9" * 30])
def test_a_file_that_is_only_there_is_no_lock_whatever_it_says(path: Path, text: str) -> None:
    path.write_text(text)
    with locked(path, REFUSAL):
        assert path.read_text() == str(os.getpid())


def test_an_owner_that_does_not_sign_is_another_process(path: Path) -> None:
    with locked(path, REFUSAL):
        path.write_text("")
        with pytest.raises(UserError, match="busy: another process has"), locked(path, REFUSAL):
            pytest.fail("held twice")


def test_a_lock_that_was_removed_is_none_and_the_new_one_stays(path: Path) -> None:
    with locked(path, REFUSAL):
        path.unlink()
        with locked(path, REFUSAL):
            assert path.exists()


def test_where_no_file_can_be_made_there_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), locked(tmp_path / "nowhere" / "lock", REFUSAL):
        pytest.fail("held nothing")
