"""An OCI image layout, as registries store it and `oras` and `skopeo` copy it: every file of the build is a layer.

https://github.com/opencontainers/image-spec/blob/main/image-layout.md; files have their names as annotations, which is
what ORAS restores.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fimaq_deploy.manifest import sha256
from fimaq_deploy.packaging.facts import Facts

ARTIFACT_TYPE = "application/vnd.fimaq-deploy.build.v1"
_FILE, _EMPTY = "application/octet-stream", "application/vnd.oci.empty.v1+json"
_MANIFEST, _INDEX = "application/vnd.oci.image.manifest.v1+json", "application/vnd.oci.image.index.v1+json"
_TITLE = "org.opencontainers.image.title"


def write_layout(facts: Facts, folder: Path, more: Mapping[str, bytes]) -> list[str]:
    """Write it into a folder. more: other files, by name. Returns what a user should know."""
    blobs = folder / "blobs" / "sha256"
    blobs.mkdir(parents=True)
    layers = [_file(facts.artifact.path / name, blobs) for name in facts.names]
    layers += [{**_stored(data, _FILE, blobs), "annotations": {_TITLE: name}} for name, data in more.items()]
    manifest = {
        "schemaVersion": 2,
        "mediaType": _MANIFEST,
        "artifactType": ARTIFACT_TYPE,
        "config": _stored(b"{}", _EMPTY, blobs),
        "layers": layers,
        "annotations": {"org.opencontainers.image.created": facts.created, _TITLE: facts.name},
    }
    own = _stored(_json(manifest), _MANIFEST, blobs)
    index = {
        "schemaVersion": 2,
        "mediaType": _INDEX,
        "manifests": [
            {**own, "artifactType": ARTIFACT_TYPE, "annotations": {"org.opencontainers.image.ref.name": "latest"}}
        ],
    }
    (folder / "index.json").write_bytes(_json(index))
    (folder / "oci-layout").write_bytes(_json({"imageLayoutVersion": "1.0.0"}))
    return []


def _file(path: Path, blobs: Path) -> dict[str, Any]:
    digest = sha256(path)
    shutil.copyfile(path, blobs / digest)
    described = {"mediaType": _FILE, "digest": f"sha256:{digest}", "size": path.stat().st_size}
    return {**described, "annotations": {_TITLE: path.name}}


def _stored(data: bytes, media_type: str, blobs: Path) -> dict[str, Any]:
    digest = hashlib.sha256(data).hexdigest()
    (blobs / digest).write_bytes(data)
    return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(data)}


def _json(document: dict[str, Any]) -> bytes:
    return json.dumps(document, indent=1, sort_keys=True).encode()
