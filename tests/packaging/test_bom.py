from __future__ import annotations

import json
from pathlib import Path

import pytest

from fimaq_deploy.manifest import read_manifest
from fimaq_deploy.packaging.bom import bill_of_materials
from fimaq_deploy.packaging.facts import read_facts


def test_the_standards_own_schema_takes_it(artifact: Path) -> None:
    validation = pytest.importorskip("cyclonedx.validation.json")
    from cyclonedx.schema import SchemaVersion

    text = json.dumps(bill_of_materials(read_facts(artifact)))
    assert validation.JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None


def test_it_holds_the_hash_of_every_file_and_every_version(artifact: Path) -> None:
    document = bill_of_materials(read_facts(artifact))
    manifest = read_manifest(artifact) or {}
    hashes = {one["name"]: one["hashes"][0]["content"] for one in document["components"] if one["type"] == "file"}
    assert hashes == {name: facts["sha256"] for name, facts in manifest["files"].items()}
    libraries = {one["name"]: one["version"] for one in document["components"] if one["type"] == "library"}
    assert libraries == manifest["versions"]
    assert document["metadata"]["component"]["type"] == "machine-learning-model"


def test_the_same_build_has_the_same_document(artifact: Path) -> None:
    assert bill_of_materials(read_facts(artifact)) == bill_of_materials(read_facts(artifact))
