from __future__ import annotations

import tarfile
from pathlib import Path

from fimaq_deploy.packaging.packages import package
from fimaq_deploy.runtime.verification import verify_artifact


def test_what_is_unpacked_is_the_build(artifact: Path, tmp_path: Path) -> None:
    out = package(artifact, "tar").out
    assert out == Path(f"{artifact}.tar")
    with tarfile.open(out) as tar:
        tar.extractall(tmp_path / "unpacked", filter="data")
    assert verify_artifact(tmp_path / "unpacked" / "tiny", targets=["onnxruntime-cpu"], time=False).good


def test_it_holds_plain_files_of_nobody_in_one_folder(artifact: Path, tmp_path: Path) -> None:
    """Also where a file of the build is a link."""
    elsewhere = tmp_path / "elsewhere.onnx"
    (artifact / "model.onnx").rename(elsewhere)
    (artifact / "model.onnx").symlink_to(elsewhere)
    with tarfile.open(package(artifact, "tar", out=tmp_path / "x.tar").out) as tar:
        members = tar.getmembers()
    assert members and all(
        one.isfile() and one.name.startswith("tiny/") and one.name.count("/") == 1 for one in members
    )
    assert {(one.mode, one.uid, one.gid, one.mtime, one.uname) for one in members} == {(0o644, 0, 0, 0, "")}


def test_equal_builds_give_equal_tars(artifact: Path, tmp_path: Path) -> None:
    first, second = (package(artifact, "tar", out=tmp_path / name).out.read_bytes() for name in ("a.tar", "b.tar"))
    assert first == second
