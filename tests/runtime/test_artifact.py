from __future__ import annotations

import json
from pathlib import Path

import pytest
from fixtures.artifacts import INFO, MS, write_facts

from fimaq_deploy.contract import read_contract
from fimaq_deploy.errors import UserError
from fimaq_deploy.manifest import MANIFEST, read_manifest
from fimaq_deploy.runtime.artifact import open_artifact


def test_a_folder_has_its_name_files_and_times(artifact: Path) -> None:
    found = open_artifact(artifact)
    assert (found.name, found.is_folder) == ("tiny", True)
    assert {"model.onnx", "report.json"} <= {*found.files}
    assert found.latency_ms("onnxruntime-cpu") == MS
    assert found.latency_ms("openvino-cpu") is None


def test_a_file_has_its_own_contract(artifact: Path, tmp_path: Path) -> None:
    (tmp_path / "alone.onnx").write_bytes((artifact / "model.onnx").read_bytes())
    found = open_artifact(tmp_path / "alone.onnx")
    assert (found.name, found.files, found.is_folder) == ("alone", ["alone.onnx"], False)
    assert found.contract == open_artifact(artifact).contract
    assert found.contract.mean == INFO.mean and found.latency_ms("onnxruntime-cpu") is None


def test_a_report_of_another_kind_tells_no_times(artifact: Path) -> None:
    contract = read_contract((read_manifest(artifact) or {})["contract"], "")
    (artifact / "report.json").write_text(json.dumps({"rows": [{"id": 1, "latency": [{"p50_ms": 1}]}]}))
    write_facts(artifact, contract)
    assert open_artifact(artifact).latency_ms("onnxruntime-cpu") is None


def test_what_is_no_artifact_is_refused(artifact: Path, tmp_path: Path, exported: object) -> None:
    (tmp_path / "empty").mkdir()
    for path, message in (("nowhere", "is not there"), ("empty", "holds no manifest")):
        with pytest.raises(UserError, match=message):
            open_artifact(tmp_path / path)
    with pytest.raises(UserError, match="says nothing of its input"):
        open_artifact(artifact / "report.json")


def test_an_onnx_file_without_a_contract_is_refused(exported: object) -> None:
    _, file = exported("w8a8")  # type: ignore[operator]
    with pytest.raises(UserError, match="has no contract of its input"):
        open_artifact(file)


def test_a_build_of_an_earlier_version_is_refused(artifact: Path) -> None:
    document = json.loads((artifact / MANIFEST).read_text())
    document.pop("contract"), document.pop("manifest_sha256")
    document["versions"] = {"fimaq-deploy": "0.1.0"}
    (artifact / MANIFEST).write_text(json.dumps(document))
    with pytest.raises(UserError, match="build again with this version"):
        open_artifact(artifact)
