"""Tars that somebody else made: what `package` wrote comes back whole, and everything else writes nothing at all."""

from __future__ import annotations

import gzip
import io
import shutil
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fixtures.artifacts import write_facts
from hypothesis import given, settings
from hypothesis import strategies as st

from fimaq_deploy.contract import read_contract
from fimaq_deploy.errors import UserError
from fimaq_deploy.manifest import MANIFEST, read_manifest
from fimaq_deploy.packaging.packages import package
from fimaq_deploy.packaging.unpacking import unpack
from fimaq_deploy.runtime.verification import verify_artifact

Entry = tuple[str, bytes, bytes]  # name, type, content or where a link leads


@pytest.fixture
def good(artifact: Path, tmp_path: Path) -> Path:
    return package(artifact, "tar", out=tmp_path / "good.tar").out


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def refuse(file: Path, message: str = "") -> str:
    """Unpacking ends in one line and leaves the folder as it was."""
    before = sorted(path.name for path in file.parent.iterdir())
    with pytest.raises(UserError, match=message) as caught:
        unpack(file, out=file.parent / "out")
    assert sorted(path.name for path in file.parent.iterdir()) == before
    return str(caught.value)


def packed(file: Path, entries: Iterator[Entry] | list[Entry], format: int = tarfile.PAX_FORMAT) -> Path:
    with tarfile.open(file, "w", format=format) as tar:
        for name, kind, data in entries:
            info = tarfile.TarInfo(name)
            info.type = kind
            if kind in (tarfile.LNKTYPE, tarfile.SYMTYPE):
                info.linkname = data.decode()
            elif kind == tarfile.REGTYPE:
                info.size = len(data)
            tar.addfile(info, io.BytesIO(data) if info.size else None)
    return file


def build_entries(artifact: Path, folder: str = "tiny") -> list[Entry]:
    return [(f"{folder}/{name}", tarfile.REGTYPE, data) for name, data in sorted(content(artifact).items())]


def test_what_package_wrote_comes_back(good: Path, artifact: Path) -> None:
    done = unpack(good)
    assert done.out == good.with_suffix("") and done.files == len(list(artifact.iterdir())) + 1
    found = content(done.out)
    assert found.pop("bom.cdx.json") and found == content(artifact)
    assert verify_artifact(done.out, targets=["onnxruntime-cpu"], time=False).good
    assert {path.stat().st_mode & 0o111 for path in done.out.iterdir()} == {0}
    with pytest.raises(UserError, match="exists: name another place"):
        unpack(good)


@pytest.mark.parametrize("format", ["ustar", "gnu", "posix"])
def test_so_does_what_the_systems_own_tar_wrote(format: str, artifact: Path, tmp_path: Path) -> None:
    """With a folder of its own, dates, owners and, in posix, extended headers."""
    if shutil.which("tar") is None:
        pytest.skip("no tar")
    subprocess.run(["tar", f"--format={format}", "-cf", "own.tar", artifact.name], cwd=tmp_path, check=True)
    assert content(unpack(tmp_path / "own.tar", out=tmp_path / "out").out) == content(artifact)


def test_a_long_name_stands_in_an_extended_header(artifact: Path, tmp_path: Path) -> None:
    write_facts(artifact, read_contract((read_manifest(artifact) or {})["contract"], ""), model="m" * 150)
    good = package(artifact, "tar", out=tmp_path / "long.tar").out
    assert good.read_bytes()[156:157] == tarfile.XHDTYPE
    assert (unpack(good, out=tmp_path / "out").out / MANIFEST).is_file()


BAD: list[tuple[Entry, str]] = [
    (("tiny/link", tarfile.SYMTYPE, b"../../etc/passwd"), "a symbolic link"),
    (("tiny/link", tarfile.LNKTYPE, b"tiny/model.onnx"), "a hard link"),
    (("tiny/null", tarfile.CHRTYPE, b""), "a device"),
    (("tiny/disk", tarfile.BLKTYPE, b""), "a device"),
    (("tiny/pipe", tarfile.FIFOTYPE, b""), "a pipe"),
    (("tiny/more", tarfile.DIRTYPE, b""), "expected FOLDER/NAME"),
    (("tiny/sparse", tarfile.GNUTYPE_SPARSE, b""), "a sparse file"),
    (("/etc/passwd", tarfile.REGTYPE, b"x"), "expected FOLDER/NAME"),
    (("tiny/../../x", tarfile.REGTYPE, b"x"), "expected FOLDER/NAME"),
    (("../x", tarfile.REGTYPE, b"x"), "expected FOLDER/NAME"),
    (("tiny/..", tarfile.REGTYPE, b"x"), "expected FOLDER/NAME"),
    (("tiny/C:x", tarfile.REGTYPE, b"x"), "expected FOLDER/NAME"),
    (("tiny/a\\b", tarfile.REGTYPE, b"x"), "expected FOLDER/NAME"),
    (("tiny/model.onnx.", tarfile.REGTYPE, b"x"), "expected FOLDER/NAME"),
    (("tiny/.hidden", tarfile.REGTYPE, b"x"), "expected FOLDER/NAME"),
    (("tiny/\u212aelvin", tarfile.REGTYPE, b"x"), "expected FOLDER/NAME"),
    (("loose", tarfile.REGTYPE, b"x"), "expected FOLDER/NAME"),
    (("tiny/" + "n" * 300, tarfile.REGTYPE, b"x"), "expected FOLDER/NAME"),
    (("tiny/model.onnx", tarfile.REGTYPE, b"x"), "expected names that differ"),
    (("tiny/Model.ONNX", tarfile.REGTYPE, b"x"), "expected names that differ"),
    (("other/x", tarfile.REGTYPE, b"x"), "several folders"),
]


@pytest.mark.parametrize("entry,message", BAD, ids=[repr(entry[0])[:30] + entry[1].decode() for entry, _ in BAD])
@pytest.mark.parametrize("first", [True, False])
def test_what_could_do_harm_is_refused(entry: Entry, message: str, first: bool, artifact: Path, tmp_path: Path) -> None:
    entries = build_entries(artifact)
    refuse(packed(tmp_path / "x.tar", [entry, *entries] if first else [*entries, entry]), message)


def test_what_is_none_of_a_builds_tars_is_refused(good: Path, artifact: Path, tmp_path: Path) -> None:
    whole = good.read_bytes()
    others: list[tuple[bytes, str]] = [
        (b"", "truncated, or no tar"),
        (b"x" * 4096, "damaged, or no tar"),
        (gzip.compress(b"\0" * 10**7), "is compressed"),
        (b"PK\x03\x04" + b"x" * 600, "is compressed"),
        (b"\0" * 1024, "holds no manifest.json"),
        (whole[:512], "truncated"),
        (whole[:-10240].rstrip(b"\0"), "truncated"),
    ]
    for data, message in others:
        (tmp_path / "x.tar").write_bytes(data)
        refuse(tmp_path / "x.tar", message)
    refuse(
        packed(tmp_path / "x.tar", [e for e in build_entries(artifact) if MANIFEST not in e[0]]), "holds no manifest"
    )
    refuse(
        packed(tmp_path / "x.tar", [e for e in build_entries(artifact) if "onnx" not in e[0]]), "not the tar of a build"
    )


def test_a_size_that_is_not_there_is_refused_however_it_is_written(artifact: Path, tmp_path: Path) -> None:
    for size in (2**20, 2**33, 2**62, -1):
        info = tarfile.TarInfo("tiny/model.onnx")
        info.size = size
        formats = [tarfile.GNU_FORMAT] if size < 0 else [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT]
        for format in formats:
            (tmp_path / "x.tar").write_bytes(info.tobuf(format) + b"\0" * 1024)
            refuse(tmp_path / "x.tar", "truncated|damaged")


@pytest.mark.parametrize("data", [b"", b"9999999999 a=b\n", b"-5 a=b\n", b"0 a=b\n", b"9 path=\xff\n", b"11 size=-1\n"])
def test_extended_headers_that_mean_nothing_else(data: bytes, tmp_path: Path, artifact: Path) -> None:
    info = tarfile.TarInfo("x")
    info.type, info.size = tarfile.XHDTYPE, len(data)
    begin = info.tobuf(tarfile.USTAR_FORMAT) + data.ljust(512 * bool(data), b"\0")
    whole = packed(tmp_path / "whole.tar", build_entries(artifact)).read_bytes()
    (tmp_path / "x.tar").write_bytes(begin + whole)
    if data:
        refuse(tmp_path / "x.tar", "an extended header cannot be read")
    else:
        assert content(unpack(tmp_path / "x.tar", out=tmp_path / "out").out) == content(artifact)


@pytest.mark.parametrize("key", ["GNU.sparse.major", "GNU.sparse.map", "linkpath", "hdrcharset", "SCHILY.xattr.user.a"])
def test_an_extended_header_that_changes_more_is_refused(key: str, artifact: Path, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "x.tar", "w", format=tarfile.PAX_FORMAT) as tar:
        info = tarfile.TarInfo("tiny/model.onnx")
        info.pax_headers = {key: "1"}
        tar.addfile(info)
    refuse(tmp_path / "x.tar", "an extended header")


def test_a_place_that_is_taken_or_cannot_be_is_one_line(good: Path, tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    with pytest.raises(UserError, match="exists: name another place"):
        unpack(good, out=tmp_path / "taken")
    with pytest.raises(UserError, match="cannot write"):
        unpack(good, out=good / "below")
    with pytest.raises(UserError, match="is no file"):
        unpack(tmp_path)
    good.rename(tmp_path / "build")
    with pytest.raises(UserError, match="name the folder with --out"):
        unpack(tmp_path / "build")


NAMES = st.one_of(
    st.sampled_from(["tiny/model.onnx", "tiny/MODEL.onnx", "tiny/manifest.json", "tiny", "tiny/", "tiny/x", "a/b/c"]),
    st.lists(st.sampled_from(["..", ".", "", "/", "tiny", "x", "\\", "C:", "a\n", "\x00", "é"]), max_size=4).map(
        "/".join
    ),
    st.text(max_size=8),
)
KINDS = st.sampled_from(
    [b"0", b"0", b"0", b"\0", b"1", b"2", b"3", b"4", b"5", b"6", b"7", b"S", b"L", b"K", b"x", b"g"]
)
ENTRIES = st.lists(st.tuples(NAMES, KINDS, st.binary(max_size=40)), max_size=4)


@pytest.fixture(scope="module")
def place(_built: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Path]:
    """A folder of its own with nothing in it but an empty one, deep enough for a few steps up."""
    home = tmp_path_factory.mktemp("unpacking")
    return lambda: Path(home / "one" / "two" / "three")


def everything(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


@settings(max_examples=40, deadline=None)
@given(before=ENTRIES, after=ENTRIES)
def test_whatever_it_holds_it_is_the_build_or_nothing(
    before: list[Entry], after: list[Entry], place: Callable[[], Path], _built: Path
) -> None:
    folder = place()
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    data = b"".join(raw(*one) for one in [*before, *build_entries(_built), *after]) + b"\0" * 1024
    (folder / "x.tar").write_bytes(data)
    outside = everything(folder.parent.parent)
    try:
        done = unpack(folder / "x.tar", out=folder / "out").out
    except UserError as error:
        assert "\n" not in str(error) and len(str(error)) < 500
    else:
        found, own = content(done), content(_built)
        assert {name: found[name] for name in own} == own
        shutil.rmtree(done)
    assert everything(folder.parent.parent) == outside


def raw(name: str, kind: bytes, data: bytes) -> bytes:
    """A member as anybody can write one, with a checksum that is right."""
    info = tarfile.TarInfo("x")
    info.size = len(data)
    block = bytearray(info.tobuf(tarfile.USTAR_FORMAT))
    block[:100] = name.encode(errors="ignore")[:100].ljust(100, b"\0")
    block[156:157] = kind
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block) + data + b"\0" * (-len(data) % 512)


@settings(max_examples=40, deadline=None)
@given(at=st.integers(0, 10**9), bit=st.integers(0, 7), cut=st.booleans())
def test_one_flipped_bit_or_a_missing_end_is_found(
    at: int, bit: int, cut: bool, place: Callable[[], Path], _built: Path
) -> None:
    folder = place()
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    data = bytearray(b"".join(raw(*one) for one in build_entries(_built)) + b"\0" * 1024)
    data = data[: at % (len(data) - 1023)] if cut else data
    if not cut:
        data[at % len(data)] ^= 1 << bit
    (folder / "x.tar").write_bytes(data)
    try:
        done = unpack(folder / "x.tar", out=folder / "out").out
    except UserError as error:
        assert "\n" not in str(error)
        assert everything(folder) == ["x.tar"]
    else:  # what lies between two files, or behind the last
        assert not cut and content(done) == content(_built)
