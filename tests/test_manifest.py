from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from fimaq_deploy.errors import UserError
from fimaq_deploy.manifest import MANIFEST, check_file, check_folder, origin, read_manifest, sha256, write_manifest

FACTS = {
    "model": "swin_digits",
    "weights": "pretrained",
    "seed": 0,
    "targets": ["onnxruntime-cpu"],
    "command": "fimaq-deploy build --model swin_digits",
}
FILES = {"model.onnx": b"graph", "model.onnx.data": b"numbers", "report.json": b"{}"}


@pytest.fixture
def built(tmp_path: Path) -> Path:
    folder = tmp_path / "built"
    folder.mkdir()
    for name, content in FILES.items():
        (folder / name).write_bytes(content)
    write_manifest(folder, FACTS)
    return folder


def flipped(content: bytes, at: int = 1) -> bytes:
    return content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]


def test_what_a_build_wrote_passes(built: Path) -> None:
    for name in (*FILES, MANIFEST, "added by the user"):
        check_file(built / name)
    check_folder(built)
    assert read_manifest(built) is not None


@pytest.mark.parametrize("name", FILES)
def test_one_flipped_bit_is_refused_by_the_files_name(built: Path, name: str) -> None:
    (built / name).write_bytes(flipped(FILES[name]))
    with pytest.raises(UserError, match=f"{name} is not what its build wrote"):
        check_file(built / name)
    with pytest.raises(UserError, match=f"{name} is not what its build wrote"):
        check_folder(built)


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_was_cut_off_is_refused_with_both_sizes(built: Path, name: str) -> None:
    (built / name).write_bytes(FILES[name][:-1])
    with pytest.raises(UserError, match=f"has {len(FILES[name]) - 1} bytes, its build wrote {len(FILES[name])}"):
        check_file(built / name)


@pytest.mark.parametrize("harm", [lambda path: path.write_bytes(b"NUMBERS"), lambda path: path.unlink()])
def test_a_graph_is_refused_for_the_numbers_beside_it(built: Path, harm: Callable[[Path], None]) -> None:
    harm(built / "model.onnx.data")
    with pytest.raises(UserError, match=r"model\.onnx\.data"):
        check_file(built / "model.onnx")
    check_file(built / "report.json")


def test_a_file_that_is_gone_is_refused_with_its_folder_and_left_to_its_reader_alone(built: Path) -> None:
    (built / "report.json").unlink()
    check_file(built / "report.json")
    with pytest.raises(UserError, match=r"report\.json cannot be read"):
        check_folder(built)


def test_every_flipped_byte_of_the_manifest_is_refused_or_changes_nothing(built: Path) -> None:
    whole, told = (built / MANIFEST).read_bytes(), read_manifest(built)
    for at in range(len(whole)):
        (built / MANIFEST).write_bytes(flipped(whole, at))
        try:
            found = read_manifest(built)
        except UserError as error:
            assert "\n" not in str(error)
        else:
            assert found == told, whole[at - 20 : at + 20]  # white space was hit


def test_a_file_outside_a_build_is_nobodys_promise(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"graph")
    check_file(tmp_path / "model.onnx")
    with pytest.raises(UserError, match="is not the folder of a build"):
        check_folder(tmp_path)


@pytest.mark.parametrize("text", ['{"name": "a web page", "icons": []}', "[]", "not JSON", ""])
def test_the_manifest_of_another_program_promises_nothing(tmp_path: Path, text: str) -> None:
    (tmp_path / "model.onnx").write_bytes(b"graph")
    (tmp_path / MANIFEST).write_text(text)
    check_file(tmp_path / "model.onnx")
    assert read_manifest(tmp_path) is None


@pytest.mark.parametrize(
    "text",
    [
        '{"schema": "fimaq-deploy/manifest/9", "files": {}}',
        '{"schema": "fimaq-deploy/manifest/1", "files": []}',
        '{"schema": "fimaq-deploy/manifest/1", "files": {"model.onnx": 5}}',
        '{"schema": "fimaq-deploy/manifest/1"',
        '["fimaq-deploy/manifest/1"]',
        '{"fimaq-deploy": ' + "[" * 100_000,
    ],
)
def test_a_manifest_that_cannot_be_read_is_one_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "model.onnx").write_bytes(b"graph")
    (tmp_path / MANIFEST).write_text(text)
    with pytest.raises(UserError, match=MANIFEST) as raised:
        check_file(tmp_path / "model.onnx")
    assert "\n" not in str(raised.value)
    assert len(str(raised.value)) < 500


def test_a_link_to_a_file_of_a_build_is_that_file(built: Path, tmp_path: Path) -> None:
    (tmp_path / "link.onnx").symlink_to(built / "model.onnx")
    check_file(tmp_path / "link.onnx")
    (built / "model.onnx").write_bytes(flipped(FILES["model.onnx"]))
    with pytest.raises(UserError, match="is not what its build wrote"):
        check_file(tmp_path / "link.onnx")


def test_a_build_whose_files_are_links_is_checked_where_it_is_named(built: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    (built / "model.onnx").rename(store)
    (built / "model.onnx").symlink_to(store)
    check_file(built / "model.onnx")
    store.write_bytes(flipped(FILES["model.onnx"]))
    with pytest.raises(UserError, match="is not what its build wrote"):
        check_file(built / "model.onnx")


def test_a_file_that_changed_is_hashed_again_however_soon_and_whatever_its_time_says(tmp_path: Path) -> None:
    path, seen = tmp_path / "model.onnx", set()
    for number in range(50):
        path.write_bytes(b"%05d" % number)
        seen.add(sha256(path))
        os.utime(path, ns=(0, 0))
        seen.add(sha256(path))
    assert len(seen) == 50


def test_the_facts_of_a_build_are_read_back(built: Path) -> None:
    manifest = read_manifest(built)
    assert manifest is not None
    assert origin(manifest) == ("swin_digits", "pretrained", 0, ["onnxruntime-cpu"])


def test_a_manifest_of_the_first_version_names_its_weights_in_the_command(built: Path) -> None:
    manifest = json.loads((built / MANIFEST).read_text())
    del manifest["manifest_sha256"], manifest["weights"]
    manifest["versions"] = {"fimaq-deploy": "0.1.0"}
    manifest["command"] = "fimaq-deploy build --model swin_digits --weights mine.pth"
    (built / MANIFEST).write_text(json.dumps(manifest))
    found = read_manifest(built)
    assert found is not None
    assert origin(found) == ("swin_digits", "mine.pth", 0, ["onnxruntime-cpu"])


@pytest.mark.parametrize(
    "facts", [{}, {**FACTS, "seed": "x"}, {**FACTS, "targets": 5}, {"command": 'say "'}, {"command": 5}]
)
def test_facts_that_are_missing_are_one_line(facts: dict[str, object]) -> None:
    with pytest.raises(UserError, match="does not say what was built"):
        origin(facts)
