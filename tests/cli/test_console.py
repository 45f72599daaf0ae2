from __future__ import annotations

import io
import logging
import re
import time

import pytest
from rich.console import Console

from fimaq_deploy.cli import console
from fimaq_deploy.cli.console import StepLine, duration, print_failure


def test_a_log_gets_a_line_now_and_then_with_an_estimate(capsys: pytest.CaptureFixture[str]) -> None:
    with StepLine(every_s=0.1) as progress:
        progress("quantize", 0, 4, "blocks.0")
        time.sleep(0.25)
        progress("quantize", 1, 4, "blocks.1")
        time.sleep(0.15)
        progress("export", 0, 0, "")
    lines = capsys.readouterr().err.splitlines()
    assert re.fullmatch(r"quantize  0/4 blocks\.0, 0 s", lines[0]), "nothing is known yet"
    assert any(re.fullmatch(r"quantize  1/4 blocks\.1, 0 s, about 1 s left", line) for line in lines)
    assert [re.sub(r" +[\d.]+ s", "", line) for line in lines[-2:]] == ["quantize", "export"]


def test_short_work_has_a_line_a_step_and_no_more(capsys: pytest.CaptureFixture[str]) -> None:
    with StepLine() as progress:
        for step in ("load", "quantize"):
            progress(step, 0, 0, "")
    assert [line.split()[0] for line in capsys.readouterr().err.splitlines()] == ["load", "quantize"]


def test_work_that_failed_has_not_finished_its_step(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ZeroDivisionError), StepLine() as progress:
        progress("load", 0, 0, "")
        raise ZeroDivisionError
    assert capsys.readouterr().err == ""


def test_a_terminal_gets_a_bar_with_the_estimate(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = io.StringIO()
    terminal = Console(file=screen, force_terminal=True, width=100, highlight=False, markup=False)
    monkeypatch.setattr(console, "stderr", terminal)
    with StepLine() as progress:
        progress("quantize", 0, 4, "blocks.0 [not markup]")
        time.sleep(0.3)
        progress("quantize", 2, 4, "blocks.2")
        time.sleep(0.3)
    shown = screen.getvalue()
    assert "━" in shown
    assert "0/4 blocks.0 [not markup], 0 s" in shown
    assert re.search(r"2/4 blocks\.2, \d s, about \d s left", shown)


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.2, "0 s"), (89, "89 s"), (90, "2 min"), (5000, "83 min"), (5460, "1 h 31 min")]
)
def test_durations_are_read_at_a_glance(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_a_failure_is_one_line_whatever_a_name_in_it_holds(capsys: pytest.CaptureFixture[str]) -> None:
    print_failure("error: no file 'a\nb\x1b[2J\udcff': name another")
    assert capsys.readouterr().err == "error: no file 'a b [2J ': name another\n"


def test_what_the_library_tells_is_a_line_while_it_works(capsys: pytest.CaptureFixture[str]) -> None:
    logger = logging.getLogger("fimaq_deploy.somewhere")
    before = logging.getLogger("fimaq_deploy").level
    with StepLine() as progress:
        progress("quantize", 0, 0, "")
        logger.info("memory    about %s", "1 GiB [not markup]")
        logger.debug("nobody reads this")
    logger.info("neither this")
    assert capsys.readouterr().err.splitlines()[0] == "memory    about 1 GiB [not markup]"
    assert logging.getLogger("fimaq_deploy").level == before
