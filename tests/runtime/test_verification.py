from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fixtures.artifacts import INFO, MS, write_facts

from fimaq_deploy.contract import read_contract
from fimaq_deploy.errors import UserError
from fimaq_deploy.manifest import MANIFEST, read_manifest
from fimaq_deploy.runtime.replay import REPLAY
from fimaq_deploy.runtime.verification import Verification, verify_artifact

TARGET = ["onnxruntime-cpu"]
FILES = ("model.onnx", "model.fp32.onnx", "report.json", REPLAY)


def verified(artifact: Path, **options: Any) -> Verification:
    return verify_artifact(artifact, targets=TARGET, **{"time": False, **options})


def test_a_good_copy_is_what_was_built(artifact: Path) -> None:
    found = verified(artifact, time=True)
    assert found.good and found.files == len(FILES)
    (one,) = found.replayed
    assert (one.same, one.images, one.built_ms) == (6, 6, MS)
    assert one.distance <= one.allowed and one.latency_ms and one.latency_ms > 0
    assert json.loads(json.dumps(found.document()))["good"] is True


@pytest.mark.parametrize("name", FILES)
def test_one_flipped_bit_in_a_file_is_told_with_its_name(artifact: Path, name: str) -> None:
    content = bytearray((artifact / name).read_bytes())
    content[len(content) // 2] ^= 4
    (artifact / name).write_bytes(content)
    found = verified(artifact)
    assert not found.good
    assert any(name in problem and "is not what its build wrote" in problem for problem in found.problems)


def test_every_flipped_bit_of_the_manifest_is_told_or_changes_nothing(artifact: Path) -> None:
    whole, told = (artifact / MANIFEST).read_bytes(), read_manifest(artifact)
    for at in range(0, len(whole), 97):
        (artifact / MANIFEST).write_bytes(whole[:at] + bytes([whole[at] ^ 2]) + whole[at + 1 :])
        try:
            good = verified(artifact).good
        except UserError:
            good = False
        assert not good or read_manifest(artifact) == told


def test_a_file_that_is_gone_is_told(artifact: Path) -> None:
    (artifact / "model.onnx").unlink()
    assert any("model.onnx cannot be read" in problem for problem in verified(artifact).problems)


def test_a_swapped_engine_is_told_also_where_the_manifest_knows_it(artifact: Path, exported: Any) -> None:
    contract = read_contract((read_manifest(artifact) or {})["contract"], "")
    _, other = exported("w4a4")
    shutil.copy(other, artifact / "model.onnx")
    assert not verified(artifact).good
    write_facts(artifact, contract)
    problems = " ".join(verified(artifact).problems)
    assert "does not compute what the build measured as onnxruntime-cpu" in problems
    assert "the file has no contract" in problems


def test_changed_preprocessing_is_told_with_what_differs(artifact: Path) -> None:
    changed = replace(INFO, mean=(0.485, 0.456, 0.406), interpolation="bilinear")
    contract = read_contract((read_manifest(artifact) or {})["contract"], "")
    write_facts(artifact, replace(contract, mean=changed.mean, interpolation=changed.interpolation))
    problems = " ".join(verified(artifact).problems)
    assert 'preprocessing.interpolation: "bilinear", not "bicubic"' in problems
    assert "preprocessing.mean: [0.485, 0.456, 0.406], not [0.5, 0.4, 0.3]" in problems
    assert "the preprocessing is not the build's" in problems


def test_preprocessing_changed_by_hand_is_told_with_what_differs(artifact: Path) -> None:
    text = (artifact / MANIFEST).read_text()
    (artifact / MANIFEST).write_text(text.replace('"bicubic"', '"bilinear"'))
    first, *more = verified(artifact).problems
    assert "its own SHA-256 differs" in first
    assert any('"bilinear", not "bicubic"' in problem for problem in more)


def test_a_target_that_the_build_lacks_is_told_where_it_is_asked_for(artifact: Path) -> None:
    found = verify_artifact(artifact, targets=["tensorrt-rtx"], time=False)
    assert any("TensorRT-RTX runs nothing here" in problem for problem in found.problems)
    with pytest.raises(UserError, match="nonsense"):
        verify_artifact(artifact, targets=["nonsense"])


def test_a_build_that_kept_no_images_is_checked_without(artifact: Path) -> None:
    contract = read_contract((read_manifest(artifact) or {})["contract"], "")
    (artifact / REPLAY).unlink()
    write_facts(artifact, contract)
    found = verified(artifact)
    assert found.good and any("kept no images" in note for note in found.notes)


def test_files_of_others_and_versions_are_notes(artifact: Path) -> None:
    contract = read_contract((read_manifest(artifact) or {})["contract"], "")
    write_facts(artifact, contract, versions={"onnxruntime-gpu": "0.1"})
    (artifact / "notes.txt").write_text("mine")
    found = verified(artifact)
    assert found.good
    assert any("notes.txt" in note for note in found.notes)
    assert any("0.1 in the build" in note for note in found.notes)


@pytest.mark.parametrize("name", ["../outside", "/etc/passwd", "a\\b", "..", ""])
def test_a_manifest_that_names_a_file_elsewhere_is_refused(artifact: Path, name: str) -> None:
    manifest = json.loads((artifact / MANIFEST).read_text())
    manifest["files"][name] = manifest["files"]["model.onnx"]
    manifest.pop("manifest_sha256")
    (artifact / MANIFEST).write_text(json.dumps(manifest))
    (told,) = verified(artifact).problems
    assert "is no manifest of this version" in told


def test_a_folder_without_a_build_is_bad_input(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not the folder of a build"):
        verify_artifact(tmp_path)
