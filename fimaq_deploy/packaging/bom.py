"""`bom.cdx.json`: what a build is made of and what was measured, as a CycloneDX 1.6 bill of materials (ECMA-424).

The model is the subject, with a model card; its files are components with their hashes, and so are the libraries that
the build ran with. The same build gives the same document.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any

from fimaq_deploy.packaging.facts import Facts
from fimaq_deploy.version import __version__

BOM = "bom.cdx.json"
_MODEL, _NAMESPACE = "model", uuid.UUID("5b0fb4c2-6d1c-4c55-9d66-0f6e2f0d6d59")


def bill_of_materials(facts: Facts) -> dict[str, Any]:
    """The document, for a build whose files were checked."""
    files, libraries = _files(facts), _libraries(facts)
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.uuid5(_NAMESPACE, facts.digest)}",
        "version": 1,
        "metadata": {
            "timestamp": facts.created,
            "tools": {"components": [{"type": "application", "name": "fimaq-deploy", "version": __version__}]},
            "component": _model(facts),
        },
        "components": [*files, *libraries],
        "dependencies": [{"ref": _MODEL, "dependsOn": [one["bom-ref"] for one in (*files, *libraries)]}],
    }


def _model(facts: Facts) -> dict[str, Any]:
    contract = facts.artifact.contract
    parameters = {
        "modelArchitecture": facts.model,
        "inputs": [{"format": f"image {contract.colour or contract.shape[0]} {list(contract.input_shape[1:])}"}],
        "outputs": [{"format": f"{one.name}: {one.kind or 'output'} {list(one.shape)}"} for one in contract.outputs],
    }
    metrics = [_metric(name, one) for name, one in facts.figures.items()]
    return {
        "type": "machine-learning-model",
        "bom-ref": _MODEL,
        "name": facts.model,
        "version": facts.digest[:16],
        "description": f"{facts.model} quantized with recipe {facts.recipe}",
        "modelCard": {"modelParameters": parameters, "quantitativeAnalysis": {"performanceMetrics": metrics}},
        "properties": [{"name": f"fimaq-deploy:{name}", "value": value} for name, value in facts.told.items()],
    }


def _metric(name: str, figure: Mapping[str, Any]) -> dict[str, Any]:
    low, high = figure["interval"] or (None, None)
    interval = {"lowerBound": f"{low:.6g}", "upperBound": f"{high:.6g}"} if low is not None else None
    metric = {"type": name, "value": f"{figure['value']:.6g}", "slice": figure["of"]}
    return {**metric, "confidenceInterval": interval} if interval else metric


def _files(facts: Facts) -> list[dict[str, Any]]:
    return [
        {
            "type": "file",
            "bom-ref": f"file:{name}",
            "name": name,
            "hashes": [{"alg": "SHA-256", "content": one["sha256"]}],
        }
        for name, one in facts.artifact.manifest["files"].items()
    ]


def _libraries(facts: Facts) -> list[dict[str, Any]]:
    versions = {name: known for name, known in facts.versions.items() if name != "python"}
    return [
        {
            "type": "library",
            "bom-ref": f"pkg:pypi/{name}@{known}",
            "name": name,
            "version": known,
            "purl": f"pkg:pypi/{name}@{known}",
        }
        for name, known in versions.items()
    ]
