from __future__ import annotations

import json
from pathlib import Path

import pytest
from fixtures.artifacts import write_facts

from fimaq_deploy.contract import read_contract
from fimaq_deploy.errors import UserError
from fimaq_deploy.manifest import read_manifest
from fimaq_deploy.packaging.facts import read_facts

FIGURE = {"output": "output", "name": "top1", "value": 95.5, "interval": [93.0, 97.0]}
REPORT = {
    "outputs": [{"figures": [{"name": "top1", "title": "top-1", "unit": "%"}]}],
    "data": {"evaluation": "photographs", "evaluation_images": 600},
    "rows": [
        {"id": "onnx-fp32", "labelled": [FIGURE]},
        {"id": "onnxruntime-cpu", "deployed": True, "labelled": [{**FIGURE, "value": 94.0}]},
    ],
}


def test_figures_are_those_of_what_is_deployed(artifact: Path) -> None:
    contract = read_contract((read_manifest(artifact) or {})["contract"], "")
    (artifact / "report.json").write_text(json.dumps(REPORT))
    write_facts(artifact, contract)
    facts = read_facts(artifact)
    assert facts.figures == {"top-1 (%)": {"value": 94.0, "interval": [93.0, 97.0], "of": "photographs"}}
    assert (facts.images, facts.evaluation, facts.model) == (600, "photographs", "tiny")


def test_a_changed_build_is_refused(artifact: Path) -> None:
    (artifact / "report.json").write_text("{}")
    with pytest.raises(UserError, match=r"report\.json"):
        read_facts(artifact)


def test_a_file_alone_is_refused(artifact: Path, tmp_path: Path) -> None:
    (tmp_path / "alone.onnx").write_bytes((artifact / "model.onnx").read_bytes())
    with pytest.raises(UserError, match="expected the folder of a build"):
        read_facts(tmp_path / "alone.onnx")
