"""What no value of any command may be, and the one line that becomes of whatever a command ends with."""

from __future__ import annotations

import errno
import os
import typing
from collections.abc import Callable
from pathlib import Path

import pytest
import typer
from fixtures.commands import refused

from fimaq_deploy.cli import app
from fimaq_deploy.cli.command import Command, Interrupted, line_of, shortened, way_on
from fimaq_deploy.errors import Stopped, UserError
from fimaq_deploy.pipeline.builds import build

Called = Callable[..., dict[str, object]]


@pytest.fixture
def call() -> Called:
    """Calls a command of ours and returns what it was given."""
    given: dict[str, object] = {}
    app = typer.Typer()

    def work(
        place: Path,
        images: typing.Optional[Path] = None,  # noqa: UP045
        rate: float = 1.0,
        count: int = 0,
        name: typing.Optional[str] = None,  # noqa: UP045
        target: typing.List[str] = [],  # noqa: B006, UP006
    ) -> None:
        if name == "stop":
            raise KeyboardInterrupt
        given.update(place=place, images=images, rate=rate, count=count, name=name, target=list(target))

    app.command(cls=Command)(work)

    def called(*words: str) -> dict[str, object]:
        typer.main.get_command(app)(list(words), prog_name="work", standalone_mode=False)
        return given

    return called


def test_what_can_be_meant_arrives_as_it_was_given(call: Called) -> None:
    found = call("a b", "--rate", "-2.5", "--count", str(2**63 - 1), "--target", "x", "--target", "ÿ")
    expected = {
        "place": Path("a b"),
        "images": None,
        "rate": -2.5,
        "count": 2**63 - 1,
        "name": None,
        "target": ["x", "ÿ"],
    }
    assert found == expected


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([" "], "PLACE is empty: give it a value or leave it out"),
        ([""], "an argument is empty: give it a value or leave it out"),
        (["x", "--images", ""], "--images is empty: give it a value or leave it out"),
        (["x", "--images="], "--images is empty: give it a value or leave it out"),
        (["x", "--images", " "], "--images is empty: give it a value or leave it out"),
        (["x", "--name", ""], "--name is empty: give it a value or leave it out"),
        (["x", "--name", " \t"], "--name is empty: give it a value or leave it out"),
        (["x", "--target", "a", "--target", ""], "--target is empty: give it a value or leave it out"),
        (["x", "--name", "a\0b"], r"--name 'a\x00b' holds a NUL byte: leave it out"),
        (["x\udcff"], r"PLACE 'x\udcff' is not UTF-8: rename it"),
        (["x", "--rate", "nan"], "--rate nan: expected a number"),
        (["x", "--rate", "-inf"], "--rate -inf: expected a number"),
        (["x", "--count", str(2**63)], f"--count {2**63}: expected a whole number of at most {2**63 - 1}"),
        (["x", "--count", str(-(2**63))], f"--count {-(2**63)}: expected a whole number of at most {2**63 - 1}"),
    ],
    ids=str,
)
def test_what_no_option_can_mean_is_refused_before_anything_runs(call: Called, words: list[str], told: str) -> None:
    with pytest.raises(UserError) as refused:
        call(*words)
    assert str(refused.value) == told


def test_an_interruption_gets_through_the_parser(call: Called) -> None:
    with pytest.raises(Interrupted) as ended:
        call("x", "--name", "stop")
    assert isinstance(ended.value.__cause__, KeyboardInterrupt)


@pytest.mark.parametrize("words", [["x", "--counts", "1"], ["x", "--count", "many"], [], ["x", "y"]], ids=str)
def test_what_the_parser_refuses_is_one_line_that_names_the_help(call: Called, words: list[str]) -> None:
    with pytest.raises(Exception) as refused:
        call(*words)
    line = line_of(refused.value)
    assert line is not None
    assert line.endswith("; see work --help")
    assert "\n" not in line


def failed(code: int, name: str | None = None) -> OSError:
    return OSError(code, os.strerror(code), name)


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (UserError("--seed x: expected a number"), "--seed x: expected a number"),
        (typer.BadParameter("no such\n  thing."), "Invalid value: no such thing"),
        (failed(errno.ENOTDIR, "a/b"), "a/b: not a directory; name another place"),
        (failed(errno.EACCES, "/root/x"), "/root/x: permission denied; name another place"),
        (failed(errno.ENAMETOOLONG, "x" * 300), f"{'x' * 39}…{'x' * 40}: file name too long; name another place"),
        (MemoryError(), "not enough memory (): take smaller images or batches, or fewer images"),
        (
            RuntimeError("CUDA out of memory.\n Tried 2 GiB"),
            "not enough memory (CUDA out of memory. Tried 2 GiB): take smaller images or batches, or fewer images",
        ),
        (
            RuntimeError("DefaultCPUAllocator: can't allocate memory"),
            "not enough memory (DefaultCPUAllocator: can't allocate memory): take smaller images or batches, "
            "or fewer images",
        ),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_a_user_can_mend_is_told_in_one_line(error: BaseException, told: str) -> None:
    assert line_of(error) == told


def test_a_full_disk_is_told_also_behind_an_error_of_a_library() -> None:
    full = failed(errno.ENOSPC, "x")
    wrapped = RuntimeError("cannot save")
    wrapped.__cause__ = full
    for error in (full, wrapped):
        line = line_of(error)
        assert line is not None
        assert line.startswith("no space left on a disk (")
        assert line.endswith("): free some, also where TMPDIR leads, and run it again")


@pytest.mark.parametrize(
    "error",
    [ValueError("x"), RuntimeError("shapes differ"), failed(errno.EACCES), failed(errno.ENOENT, "ours"), KeyError("x")],
    ids=repr,
)
def test_a_fault_of_our_own_has_no_line(error: BaseException) -> None:
    assert line_of(error) is None


def test_a_long_line_keeps_both_its_ends() -> None:
    line = "".join(chr(ord("a") + place % 26) for place in range(5000))
    cut = shortened(line)
    assert len(cut) < 810
    first, last = cut.split(" … ")
    assert line.startswith(first)
    assert line.endswith(last)
    assert min(len(first), len(last)) >= 400
    assert shortened(line[:800]) == line[:800]


def test_the_way_on_is_what_the_work_says_wherever_it_is_in_the_chain() -> None:
    stopped = Stopped("build/x: finished blocks are kept; go on with --resume")
    cause, context = Interrupted(), RuntimeError("a library's own")
    cause.__cause__ = context
    context.__context__ = stopped
    assert way_on(stopped) == way_on(context) == way_on(cause) == str(stopped)
    assert way_on(KeyboardInterrupt()) == "nothing is left half-written; run the same command again"


EVERY_PATH = [
    (name, max(one.opts, key=len))
    for name, command in typer.main.get_command(app).commands.items()  # type: ignore[attr-defined]
    for one in command.params
    if one.opts[0].startswith("-") and not getattr(one, "is_flag", False)
]


@pytest.mark.parametrize(("command", "option"), EVERY_PATH)
@pytest.mark.parametrize("spelled", [("{}", ""), ("{}=",)])
def test_no_option_of_any_command_may_be_empty(
    command: str, option: str, spelled: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    words = [word.format(option) for word in spelled]
    assert refused(capsys, command, *words) == f"error: {option} is empty: give it a value or leave it out"


def test_api_paths_may_not_be_empty_either() -> None:
    for name in ("images", "eval_images", "out", "class_map", "weights"):
        with pytest.raises(UserError, match="expected a path"):
            build("vit_digits", **{name: ""})  # type: ignore[arg-type]
