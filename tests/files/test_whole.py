from __future__ import annotations

import ast
import os
import re
import resource
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from safetensors import SafetensorError

import fimaq_deploy
from fimaq_deploy.errors import UserError
from fimaq_deploy.files import disk_is_full, write_whole, written_whole
from fimaq_deploy.files.whole import whole_folder

ROOT = os.geteuid() == 0


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_is_written_and_nothing_is_left_beside_it(tmp_path: Path) -> None:
    write_whole(tmp_path / "a" / "b" / "page.html", b"whole")
    assert (tmp_path / "a" / "b" / "page.html").read_bytes() == b"whole"
    assert names(tmp_path / "a" / "b") == ["page.html"]


def test_what_was_there_stays_whole_until_the_new_file_is(tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    write_whole(path, b"old")
    with written_whole(path) as beside:
        beside.write_bytes(b"ne")
        assert path.read_bytes() == b"old"
        beside.write_bytes(b"new")
    assert path.read_bytes() == b"new"


def test_an_interrupted_writer_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    write_whole(path, b"old")
    with pytest.raises(KeyboardInterrupt), written_whole(path) as beside:
        beside.write_bytes(b"ne")
        raise KeyboardInterrupt
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["page.html"]


def test_other_errors_of_the_block_keep_their_type(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), written_whole(tmp_path / "page.html"):
        raise ZeroDivisionError
    assert names(tmp_path) == []


def test_a_new_file_has_the_permissions_of_the_umask_and_an_old_one_keeps_its_own(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        write_whole(tmp_path / "new", b"")
        write_whole(tmp_path / "old", b"")
        (tmp_path / "old").chmod(0o600)
        write_whole(tmp_path / "old", b"again")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o640
    assert stat.S_IMODE((tmp_path / "old").stat().st_mode) == 0o600


def test_a_name_of_255_characters_is_written(tmp_path: Path) -> None:
    write_whole(tmp_path / ("n" * 255), b"whole")
    assert (tmp_path / ("n" * 255)).read_bytes() == b"whole"


# What is no regular file


def test_a_link_stays_and_its_target_is_written(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    link, chain = tmp_path / "link.html", tmp_path / "chain.html"
    link.symlink_to(Path("real") / "page.html")
    chain.symlink_to(link)
    for path in (link, chain):
        write_whole(path, path.name.encode())
        assert path.is_symlink()
        assert (tmp_path / "real" / "page.html").read_bytes() == path.name.encode()
    assert names(tmp_path / "real") == ["page.html"]


def test_a_relative_link_below_a_linked_folder_leads_where_the_system_says(tmp_path: Path) -> None:
    (tmp_path / "deep" / "inside").mkdir(parents=True)
    (tmp_path / "deep" / "inside" / "link").symlink_to("../target")
    (tmp_path / "short").symlink_to(tmp_path / "deep" / "inside")
    write_whole(tmp_path / "short" / "link", b"whole")
    assert (tmp_path / "deep" / "target").read_bytes() == b"whole"


@pytest.fixture
def null(tmp_path: Path) -> Iterator[Path]:
    """A device of our own, so that a fault does not replace the system's."""
    if not ROOT:
        pytest.skip("devices are made by root alone")
    path = tmp_path / "null"
    os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 3))
    yield path
    path.unlink()


def test_a_device_is_written_into_and_stays_a_device(null: Path) -> None:
    write_whole(null, b"anything")
    assert stat.S_ISCHR(null.stat().st_mode)
    assert names(null.parent) == ["null"]


def test_a_full_device_is_one_line_and_stays_a_device() -> None:
    with pytest.raises(UserError, match=r"^cannot write /dev/full: no space left"):
        write_whole(Path("/dev/full"), b"anything")
    assert stat.S_ISCHR(Path("/dev/full").stat().st_mode)


def test_a_block_device_is_refused(tmp_path: Path) -> None:
    if not ROOT:
        pytest.skip("devices are made by root alone")
    disk = tmp_path / "disk"
    os.mknod(disk, stat.S_IFBLK | 0o666, os.makedev(250, 250))
    with pytest.raises(UserError, match="no place for a file"):
        write_whole(disk, b"anything")


def test_a_pipe_gets_everything_and_stays_a_pipe(tmp_path: Path) -> None:
    pipe, data = tmp_path / "pipe", bytes(range(256)) * 4096
    os.mkfifo(pipe)
    read: list[bytes] = []
    reader = threading.Thread(target=lambda: read.append(pipe.read_bytes()))
    reader.start()
    write_whole(pipe, data)
    reader.join(10)
    assert read == [data]
    assert stat.S_ISFIFO(pipe.stat().st_mode)


WRITE = """
from pathlib import Path
from fimaq_deploy.files import write_whole
print("before")
write_whole(Path({name!r}), b"whole\\n")
print("after")
"""


@pytest.mark.parametrize("name", ["/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"])
@pytest.mark.parametrize("into", ["file", "pipe"])
def test_standard_output_is_written_in_its_order(tmp_path: Path, name: str, into: str) -> None:
    command = [sys.executable, "-c", WRITE.format(name=name)]
    if into == "pipe":
        said = subprocess.run(command, capture_output=True, check=True).stdout
    else:
        with (tmp_path / "out").open("wb") as sink:
            subprocess.run(command, stdout=sink, check=True)
        said = (tmp_path / "out").read_bytes()
    assert said == b"before\nwhole\nafter\n"


# What cannot be written


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("", "it is a folder"),
        ("folder", "it is a folder"),
        ("n" * 256, "the name is too long"),
        ("m/" * 1500 + "page.html", "the name is too long"),
        ("file/below", "not a directory"),
        ("loop", "too many levels of symbolic links"),
        ("nul\0byte", "no place for a file"),
        ("/proc/nothing", "no such file"),
    ],
)
def test_an_impossible_name_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, reason: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_bytes(b"old")
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(UserError, match=f"^cannot write .*{reason}") as raised:
        write_whole(Path(name), b"new")
    assert "\n" not in str(raised.value)
    assert names(tmp_path) == ["file", "folder", "loop"]


AS_NOBODY = """
import os
from pathlib import Path
import fimaq_deploy
from fimaq_deploy.errors import UserError
from fimaq_deploy.files import write_whole
os.setuid(65534)
try:
    write_whole(Path({path!r}), b"new")
except UserError as error:
    print(error)
"""


@pytest.mark.parametrize("made", ["a file that may only be read", "a folder that may only be read"])
def test_permissions_are_not_got_around(tmp_path: Path, made: str) -> None:
    if not ROOT:
        pytest.skip("only root can become somebody else")
    for folder in list(tmp_path.parents)[:2]:
        folder.chmod(0o755)
    tmp_path.chmod(0o755 if made.startswith("a folder") else 0o777)
    path = tmp_path / "page.html"
    if made.startswith("a file"):
        path.write_bytes(b"old")
        path.chmod(0o444)
    done = subprocess.run([sys.executable, "-c", AS_NOBODY.format(path=str(path))], capture_output=True, text=True)
    assert "permission denied; name another place" in done.stdout, done.stderr
    assert names(tmp_path) == (["page.html"] if made.startswith("a file") else [])


def test_a_disk_that_fills_up_is_one_line_and_keeps_what_was_there(tmp_path: Path) -> None:
    write_whole(tmp_path / "page.html", b"old")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(UserError, match="no space left") as raised:
            write_whole(tmp_path / "page.html", bytes(2000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert disk_is_full(raised.value)
    assert (tmp_path / "page.html").read_bytes() == b"old"
    assert names(tmp_path) == ["page.html"]


def test_a_full_disk_is_known_inside_a_librarys_own_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no space left") as raised, written_whole(tmp_path / "weights"):
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")
    assert disk_is_full(raised.value)
    assert not disk_is_full(UserError("No space left on device is only what a user wrote"))
    assert not disk_is_full(None)


WRITERS = {"write_text", "write_bytes", "save_file", "copyfile", "copytree", "save_model", "tofile"}


def writers_of_their_own(path: Path) -> Iterator[str]:
    """Calls that write a file and do not stand in a `with written_whole(...)` block."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    whole = {
        inner
        for block in ast.walk(tree)
        if isinstance(block, ast.With) and "written_whole" in ast.unparse(block.items[0])
        for inner in ast.walk(block)
    }
    for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call) and node not in whole):
        if any(keyword.arg == "fileobj" for keyword in call.keywords):  # in memory
            continue
        name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
        modes = [one.value for one in ast.walk(call) if isinstance(one, ast.Constant) and isinstance(one.value, str)]
        if name in WRITERS or (name == "open" and any(re.fullmatch("[wax]b?[+]?|r[+]b?", mode) for mode in modes)):
            yield f"{path.name}:{call.lineno} {ast.unparse(call)}"


def test_a_folder_is_there_whole_or_not_at_all(tmp_path: Path) -> None:
    with whole_folder(tmp_path / "new" / "folder") as folder:
        (folder / "file").write_text("text")
        assert not (tmp_path / "new" / "folder").exists()
    assert (tmp_path / "new" / "folder" / "file").read_text() == "text"
    with pytest.raises(KeyError), whole_folder(tmp_path / "other") as folder:
        (folder / "file").write_text("text")
        raise KeyError
    with pytest.raises(UserError, match="exists"), whole_folder(tmp_path / "new"):
        pass
    with pytest.raises(UserError, match="cannot write"), whole_folder(tmp_path / "new" / "folder" / "file" / "below"):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["new"]


def test_nothing_else_in_the_package_writes_a_file() -> None:
    package = Path(fimaq_deploy.__file__).parent
    # A package is written into a folder that takes its place whole.
    rooms = (package / "files", package / "packaging")
    others = [path for path in package.rglob("*.py") if path.parent not in rooms]
    assert [found for path in others for found in writers_of_their_own(path)] == []
