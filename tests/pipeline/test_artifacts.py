from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest

from fimaq_deploy.errors import UserError
from fimaq_deploy.manifest import MANIFEST, sha256, write_manifest
from fimaq_deploy.pipeline.artifacts import REQUEST_FILE, STATE, require_space, staged

REQUEST = {"model": "swin_digits", "seed": 0}


def build_once(out: Path, text: str = "first", *, overwrite: bool = False) -> None:
    with staged(out, REQUEST, overwrite=overwrite, resume=False) as folder:
        (folder / "model.onnx").write_text(text)
        write_manifest(folder, {"seed": 0}, without=(REQUEST_FILE,))


def test_a_finished_folder_takes_its_place_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    build_once(tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [MANIFEST, "model.onnx"]


def test_parents_are_made(tmp_path: Path) -> None:
    build_once(tmp_path / "a" / "b" / "out")
    assert (tmp_path / "a" / "b" / "out" / "model.onnx").is_file()


def test_the_manifest_lists_every_file_with_its_hash(tmp_path: Path) -> None:
    build_once(tmp_path / "out", "first")
    manifest = json.loads((tmp_path / "out" / MANIFEST).read_text())
    assert manifest["schema"] == "fimaq-deploy/manifest/1"
    assert manifest["files"] == {
        "model.onnx": {"sha256": "a7937b64b8caa58f03721bb6bacf5c78cb235febe0e70b1b84cd99541461a08e", "size_bytes": 5}
    }
    assert sha256(tmp_path / "out" / "model.onnx") == manifest["files"]["model.onnx"]["sha256"]


def test_an_existing_build_is_replaced_only_when_asked(tmp_path: Path) -> None:
    out = tmp_path / "out"
    build_once(out)
    with pytest.raises(UserError, match="--overwrite"):
        build_once(out, "second")
    assert (out / "model.onnx").read_text() == "first"
    build_once(out, "second", overwrite=True)
    assert (out / "model.onnx").read_text() == "second"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_folder_that_is_no_build_is_never_replaced(tmp_path: Path) -> None:
    out = tmp_path / "thesis"
    out.mkdir()
    (out / "chapter1.tex").write_text("precious")
    with pytest.raises(UserError, match="not an earlier build"):
        build_once(out, overwrite=True)
    assert (out / "chapter1.tex").read_text() == "precious"


def test_a_partial_folder_that_is_no_build_is_never_removed(tmp_path: Path) -> None:
    foreign = tmp_path / "out.partial"
    foreign.mkdir()
    (foreign / "chapter1.tex").write_text("precious")
    with pytest.raises(UserError, match="not an unfinished build"):
        build_once(tmp_path / "out")
    assert (foreign / "chapter1.tex").read_text() == "precious"


def interrupt(out: Path, *, with_state: bool, resume: bool = False, request: dict[str, object] = REQUEST) -> None:
    with pytest.raises(KeyboardInterrupt), staged(out, request, overwrite=True, resume=resume) as folder:
        (folder / "model.onnx").write_text("half")
        if with_state:
            (folder / STATE).mkdir(exist_ok=True)
            (folder / STATE / "block-003").write_text("learned")
        raise KeyboardInterrupt


def test_an_interrupted_build_leaves_the_earlier_one_as_it_was(tmp_path: Path) -> None:
    build_once(tmp_path / "out")
    interrupt(tmp_path / "out", with_state=False)
    assert (tmp_path / "out" / "model.onnx").read_text() == "first"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_resumable_state_survives_an_interruption(tmp_path: Path) -> None:
    out = tmp_path / "out"
    interrupt(out, with_state=True)
    with staged(out, REQUEST, overwrite=False, resume=True) as folder:
        assert (folder / STATE / "block-003").read_text() == "learned"
    assert not (out / STATE).exists()


def test_without_resume_an_unfinished_build_starts_over(tmp_path: Path) -> None:
    out = tmp_path / "out"
    interrupt(out, with_state=True)
    with staged(out, REQUEST, overwrite=False, resume=False) as folder:
        assert not (folder / STATE).exists()


def test_other_settings_are_not_resumed(tmp_path: Path) -> None:
    out = tmp_path / "out"
    interrupt(out, with_state=True)
    other = {**REQUEST, "seed": 1}
    with pytest.raises(UserError, match="other settings"), staged(out, other, overwrite=False, resume=True):
        pass
    assert (tmp_path / "out.partial" / STATE / "block-003").is_file()


def test_a_place_that_cannot_be_written_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot write .*/out: .*/file is not a directory"):
        build_once(tmp_path / "file" / "out")


def test_a_full_disk_is_one_clear_line(tmp_path: Path) -> None:
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    with pytest.raises(UserError, match="no space left"), staged(tmp_path / "out", {}, overwrite=False, resume=False):
        raise RuntimeError(f"safetensors: {full}")
    assert list(tmp_path.iterdir()) == []


def test_other_errors_keep_their_type(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), staged(tmp_path / "out", {}, overwrite=False, resume=False):
        raise ZeroDivisionError


def test_too_little_space_is_refused_before_the_work(tmp_path: Path) -> None:
    require_space(tmp_path, 1)
    with pytest.raises(UserError, match="MB are free"):
        require_space(tmp_path, 10**17)
