from __future__ import annotations

import os
import signal
import threading
import time

import pytest

from fimaq_deploy.engines.interruptible import interruptible


def interrupt_soon() -> None:
    threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()


def test_work_returns_and_raises_as_if_it_were_called() -> None:
    assert interruptible(lambda stop: 42) == 42
    with pytest.raises(ZeroDivisionError):
        interruptible(lambda stop: 1 // 0)


def test_an_interruption_asks_the_work_to_end_and_waits_for_it() -> None:
    ended = []

    def work(stop: threading.Event) -> None:
        assert stop.wait(60)
        time.sleep(0.3)
        ended.append(time.monotonic())

    interrupt_soon()
    with pytest.raises(KeyboardInterrupt):
        interruptible(work)
    assert len(ended) == 1


def test_work_that_answers_no_interruption_does_not_keep_the_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fimaq_deploy.engines.interruptible._PATIENCE_S", 0.1)
    go_on = threading.Event()
    interrupt_soon()
    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        interruptible(lambda stop: go_on.wait(60))
    assert time.monotonic() - started < 30
    go_on.set()


def test_in_another_thread_it_is_a_plain_call() -> None:
    seen: list[threading.Thread] = []

    def ask() -> None:
        seen.append(interruptible(lambda stop: threading.current_thread()))

    thread = threading.Thread(target=ask)
    thread.start()
    thread.join()
    assert seen == [thread]
