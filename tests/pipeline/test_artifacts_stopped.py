"""A build that is stopped, killed or failed at every single step it takes on the disk, and two builds at once."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from fimaq_deploy.errors import UserError
from fimaq_deploy.files import write_whole
from fimaq_deploy.files.folders import settle_folder
from fimaq_deploy.manifest import MANIFEST, check_file, write_manifest
from fimaq_deploy.pipeline.artifacts import REQUEST_FILE, STATE, staged

REQUEST = {"model": "swin_digits", "seed": 0}
FILES = ("model.onnx", "report.json")
# What Python reports of a program's steps on the disk, by name of its audit event.
STEPS = ("os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.truncate", "shutil.rmtree")


def build(out: Path, text: str, *, resume: bool = False) -> None:
    with staged(out, REQUEST, overwrite=True, resume=resume) as folder:
        write_whole(folder / STATE / "block-000.safetensors", text.encode())
        for name in FILES:
            write_whole(folder / name, f"{name} {text}".encode())
        write_manifest(folder, {}, without=(REQUEST_FILE,))


def what_stands(out: Path) -> str:
    """Which build stands at `out`, whole and as its manifest says."""
    for name in FILES:
        check_file(out / name)
    texts = {(out / name).read_text().removeprefix(f"{name} ") for name in FILES}
    assert len(texts) == 1, "a mixture of two builds"
    return texts.pop()


def is_step(event: str, arguments: tuple[object, ...]) -> bool:
    writes = event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
    return event in STEPS or bool(writes)


def in_a_process_of_its_own(work: Callable[[], None], at: int, act: Callable[[], None]) -> int:
    """Its exit status. `act` is called in the midst of `work`, before its step number `at`; 99 if there were less."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    code, count = 98, 0

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal count
        if is_step(event, arguments):
            count += 1
            if count == at:
                act()

    try:
        sys.addaudithook(hook)
        work()
        code = 99 if count < at else 0
    except KeyboardInterrupt:
        code = 130
    except UserError as error:
        code = 2 if "\n" not in str(error) else 97
    finally:
        os._exit(code)


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def interrupt() -> None:
    raise KeyboardInterrupt


def fill_the_disk() -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.fixture
def memory() -> Iterator[Path]:
    """A folder in memory where there is one: flushing costs nothing there."""
    with TemporaryDirectory(dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None) as folder:
        yield Path(folder)


@pytest.mark.parametrize(("act", "resume"), [(kill, False), (kill, True), (interrupt, True), (fill_the_disk, True)])
def test_whatever_stops_a_build_at_whatever_step_the_old_or_the_new_one_is_whole(
    memory: Path, act: Callable[[], None], resume: bool
) -> None:
    out, codes = memory / "out", set()
    for at in range(1, 200):
        build(out, "old")
        code = in_a_process_of_its_own(lambda: build(out, "new"), at, act)
        codes.add(code)
        if act is not kill:
            assert out.is_dir(), f"step {at}: no next command was needed"
        settle_folder(out)
        assert what_stands(out) in ("old", "new"), f"step {at}"
        build(out, "again", resume=resume)
        assert what_stands(out) == "again"
        assert sorted(path.name for path in out.iterdir()) == sorted((*FILES, MANIFEST))
        assert [path.name for path in memory.iterdir()] == ["out"], f"step {at}"
        if code == 99:
            break
    assert at > 20
    # 0: a step behind the publication, where nothing can be lost any more.
    assert codes <= {kill: {-signal.SIGKILL, 99}, interrupt: {130, 99}, fill_the_disk: {0, 2, 99}}[act]


@pytest.mark.parametrize("act", [kill, interrupt, fill_the_disk])
def test_a_first_build_that_is_stopped_leaves_no_half_folder(memory: Path, act: Callable[[], None]) -> None:
    out = memory / "deep" / "out"
    for at in range(1, 200):
        if in_a_process_of_its_own(lambda: build(out, "new"), at, act) == 99:
            break
        settle_folder(out)
        assert not out.exists() or what_stands(out) == "new"
        build(out, "again", resume=True)
        assert what_stands(out) == "again"
        for path in out.iterdir():
            path.unlink()
        out.rmdir()


def test_a_publication_that_was_cut_off_is_put_right_by_whoever_reads_first(tmp_path: Path) -> None:
    out = tmp_path / "out"
    build(out, "old")
    (tmp_path / "out.partial").mkdir()
    (tmp_path / "out.partial" / REQUEST_FILE).write_text("{}")
    out.rename(tmp_path / "out.partial" / "replaced")
    check_file(out / "model.onnx")
    assert what_stands(out) == "old"


def test_folders_that_only_look_like_ours_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "out.partial" / "replaced").mkdir(parents=True)
    settle_folder(tmp_path / "out")
    assert not (tmp_path / "out").exists()
    with pytest.raises(UserError, match="not an unfinished build"):
        build(tmp_path / "out", "new")
    assert (tmp_path / "out.partial" / "replaced").is_dir()


def test_an_earlier_build_that_was_moved_aside_is_not_removed_for_another_one(tmp_path: Path) -> None:
    out, aside = tmp_path / "out", tmp_path / "out.partial" / "replaced"
    build(out, "old")
    aside.parent.mkdir()
    (aside.parent / REQUEST_FILE).write_text("{}")
    out.rename(aside)
    out.mkdir()
    with pytest.raises(UserError, match="move one away"):
        build(out, "new")
    assert what_stands(aside) == "old"


# Two at once

BUILD = f"""
import sys
from pathlib import Path
sys.path[:0] = {sys.path!r}
from fimaq_deploy.errors import UserError
from fimaq_deploy.pipeline.artifacts import REQUEST_FILE, STATE, staged
from fimaq_deploy.manifest import write_manifest
try:
    with staged(Path(sys.argv[1]), {{}}, overwrite=True, resume=False) as folder:
        (folder / "model.onnx").write_text(sys.argv[2])
        print("under way", flush=True)
        sys.stdin.read()
        write_manifest(folder, {{}}, without=(REQUEST_FILE,))
except UserError as error:
    sys.exit(str(error))
"""


def start(out: Path, text: str) -> subprocess.Popen[str]:
    pipe = subprocess.PIPE
    command = [sys.executable, "-c", BUILD, str(out), text]
    return subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True)


def test_a_second_build_of_one_folder_is_refused_at_once_under_whatever_name(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("out")
    first = start(tmp_path / "out", "first")
    assert first.stdout and first.stdout.readline() == "under way\n"
    for name in ("out", "link", "deep/../out"):
        (tmp_path / "deep").mkdir(exist_ok=True)
        said = start(tmp_path / name, "second").communicate(timeout=60)[1]
        assert f"is being built by process {first.pid}: wait for it, or name another folder" in said
    first.communicate(timeout=60)
    assert first.returncode == 0
    assert (tmp_path / "out" / "model.onnx").read_text() == "first"


def test_a_killed_build_does_not_keep_its_folder(tmp_path: Path) -> None:
    first = start(tmp_path / "out", "first")
    assert first.stdout and first.stdout.readline() == "under way\n"
    first.kill()
    first.communicate(timeout=60)
    second = start(tmp_path / "out", "second")
    assert second.communicate(timeout=60)[1] == ""
    assert (tmp_path / "out" / "model.onnx").read_text() == "second"


def test_two_folders_are_built_side_by_side(tmp_path: Path) -> None:
    both = [start(tmp_path / name, name) for name in ("a", "b")]
    assert [one.communicate(timeout=60)[1] for one in both] == ["", ""]


# Places


def test_a_link_stays_and_its_target_is_built(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    link = tmp_path / "out"
    link.symlink_to(tmp_path / "disk" / "real")
    build(link, "first")
    build(link, "second")
    assert link.is_symlink()
    assert what_stands(tmp_path / "disk" / "real") == "second"
    assert [path.name for path in (tmp_path / "disk").iterdir()] == ["real"]


def test_a_model_that_changes_the_current_folder_moves_no_build(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "elsewhere").mkdir()
    with staged(Path("build/out"), REQUEST, overwrite=False, resume=False) as folder:
        os.chdir("elsewhere")
        write_whole(folder / "model.onnx", b"whole")
        write_manifest(folder, {}, without=(REQUEST_FILE,))
    assert (tmp_path / "build" / "out" / "model.onnx").is_file()
    assert list((tmp_path / "elsewhere").iterdir()) == []


@pytest.mark.parametrize(
    ("out", "message"),
    [
        (".", "is or holds the folder that this runs in"),
        ("..", "is or holds the folder that this runs in"),
        ("/", "is a mount point"),
        ("/proc", "is a mount point"),
        ("/proc/out", "cannot write"),
        ("/dev/null", "is not an earlier build"),
        ("/dev/null/out", "cannot write"),
        ("file", "is not an earlier build"),
        ("file/out", "is not a directory"),
        ("loop", "leads back to itself"),
        ("n" * 241, "the name is too long"),
        ("n" * 300, "the name is too long"),
        ("m/" * 2100, "cannot write"),
        ("m/" * 1500, "cannot write"),
        ("nul\0byte", "no name of a folder"),
    ],
)
def test_an_impossible_place_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, out: str, message: str
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    Path("file").write_text("mine")
    Path("loop").symlink_to("loop")
    with pytest.raises(UserError, match=message) as raised:
        build(Path(out), "new")
    assert "\n" not in str(raised.value)
    assert sorted(path.name for path in Path.cwd().iterdir()) == ["file", "loop"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["here"]


def test_the_longest_name_is_built(tmp_path: Path) -> None:
    build(tmp_path / ("n" * 240), "first")
    assert what_stands(tmp_path / ("n" * 240)) == "first"
