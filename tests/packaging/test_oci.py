from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from fimaq_deploy.packaging.oci import ARTIFACT_TYPE
from fimaq_deploy.packaging.packages import package


def blob(out: Path, described: dict[str, Any]) -> bytes:
    """What a descriptor leads to, as a registry checks it."""
    algorithm, _, digest = described["digest"].partition(":")
    data = (out / "blobs" / algorithm / digest).read_bytes()
    assert hashlib.sha256(data).hexdigest() == digest and len(data) == described["size"]
    return data


def test_every_file_is_restored_from_the_index_on(artifact: Path, tmp_path: Path) -> None:
    out = package(artifact, "oci", out=tmp_path / "layout").out
    assert json.loads((out / "oci-layout").read_text()) == {"imageLayoutVersion": "1.0.0"}
    (entry,) = json.loads((out / "index.json").read_text())["manifests"]
    manifest = json.loads(blob(out, entry))
    assert manifest["artifactType"] == entry["artifactType"] == ARTIFACT_TYPE
    assert blob(out, manifest["config"]) == b"{}"
    restored = {one["annotations"]["org.opencontainers.image.title"]: blob(out, one) for one in manifest["layers"]}
    assert json.loads(restored.pop("bom.cdx.json"))["bomFormat"] == "CycloneDX"
    assert restored == {path.name: path.read_bytes() for path in artifact.iterdir()}


def test_equal_builds_give_equal_layouts(artifact: Path, tmp_path: Path) -> None:
    first, second = (package(artifact, "oci", out=tmp_path / name).out / "index.json" for name in "ab")
    assert first.read_bytes() == second.read_bytes()
