from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from fimaq_deploy.cli import _report, main
from fimaq_deploy.cli.command import Command
from fimaq_deploy.cli.stopping import StopRequest, stop_if_asked, stop_request
from fimaq_deploy.errors import Stopped, UserError

ROOT = Path(__file__).parents[2]
NUMBERS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]


@pytest.mark.parametrize("number", NUMBERS)
def test_every_request_to_end_interrupts_and_gives_its_exit_code(number: int) -> None:
    with stop_request() as request:
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(number)
        assert request.exit_code == 128 + number


def test_a_request_that_a_library_dropped_is_made_again() -> None:
    with stop_request():
        stop_if_asked()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)
        with pytest.raises(KeyboardInterrupt):
            stop_if_asked()
    stop_if_asked()


def test_handlers_are_put_back_and_ignored_signals_stay_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stop_request():
            signal.raise_signal(signal.SIGHUP)
            assert signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_another_thread_listens_to_nothing() -> None:
    found: list[StopRequest] = []

    def listen() -> None:
        with stop_request() as request:
            found.append(request)

    thread = threading.Thread(target=listen)
    thread.start()
    thread.join()
    assert found[0].number is None


def asked(number: int) -> StopRequest:
    request = StopRequest()
    with pytest.raises(KeyboardInterrupt):
        request(number, None)
    return request


def test_what_the_work_says_about_going_on_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    said = Stopped("build/x: finished blocks are kept; go on with the same command and --resume")
    wrapped = RuntimeError("a library's own")
    wrapped.__cause__ = said
    for error in (said, wrapped):
        assert _report(error, asked(signal.SIGINT)) == 130
        assert capsys.readouterr().err == f"stopped: {said}\n"


def test_an_error_that_follows_a_request_to_end_is_no_fault(capsys: pytest.CaptureFixture[str]) -> None:
    assert _report(ImportError("a module was half imported"), asked(signal.SIGTERM)) == 143
    assert "run the same command again" in capsys.readouterr().err


def test_without_a_request_faults_keep_their_type() -> None:
    with pytest.raises(ImportError):
        _report(ImportError("ours"), StopRequest())
    assert _report(UserError("theirs"), StopRequest()) == 2


def wait_for(path: Path, process: subprocess.Popen[str]) -> None:
    for _ in range(1200):
        if path.exists():
            return
        assert process.poll() is None, process.communicate()
        time.sleep(0.1)
    pytest.fail(f"{path} did not appear")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_build_is_stopped_with_one_line_and_goes_on_with_resume(tmp_path: Path, number: int, code: int) -> None:
    out = tmp_path / "out"
    command = [
        *(sys.executable, "-m", "fimaq_deploy", "build", "--model", "vit_digits", "--out", str(out)),
        *("--target", "onnxruntime-cpu", "--set", "tuning.iterations=0"),
    ]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    pipe = subprocess.PIPE
    process = subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, env=environment)
    wait_for(tmp_path / "out.partial" / "resume" / "block-000.safetensors", process)
    process.send_signal(number)
    stdout, stderr = process.communicate(timeout=60)
    last = stderr.splitlines()[-1]
    assert last == f"stopped: {out}: finished blocks are kept; go on with the same command and --resume"
    assert process.returncode == code
    assert "Traceback" not in stdout + stderr
    assert [path.name for path in tmp_path.iterdir()] == ["out.partial"]


def test_a_signal_while_the_words_are_parsed_is_a_line_too(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(self: Command, ctx: object, args: list[str]) -> list[str]:
        os.kill(os.getpid(), signal.SIGINT)
        raise AssertionError("the signal was dropped")

    monkeypatch.setattr(Command, "parse_args", interrupted)
    with pytest.raises(SystemExit) as ended:
        main(["recipes"])
    assert ended.value.code == 130
    assert capsys.readouterr().err.startswith("stopped: nothing is left half-written")
