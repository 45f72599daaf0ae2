"""What a package says of its build, from the manifest and the report."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fimaq_deploy.errors import UserError
from fimaq_deploy.files.whole import is_file
from fimaq_deploy.manifest import MANIFEST, check_folder, sha256
from fimaq_deploy.runtime.artifact import REPORT, Artifact, open_artifact


@dataclass(frozen=True)
class Facts:
    """A build whose files are what its manifest says.

    figures: of the deployed row that was measured first, by title: value, interval (or None), and what it is of.
    """

    artifact: Artifact
    figures: Mapping[str, Mapping[str, Any]]
    evaluation: str
    images: int

    @property
    def model(self) -> str:
        return self.artifact.name

    @property
    def name(self) -> str:
        """The model's name as that of a file or a folder anywhere."""
        plain = "".join(
            letter if (letter.isalnum() and letter.isascii()) or letter in "-_." else "_" for letter in self.model
        )
        return plain.strip(".") or "model"

    @property
    def recipe(self) -> str:
        return str(self.artifact.manifest.get("recipe", ""))

    @property
    def created(self) -> str:
        return str(self.artifact.manifest.get("created", "1970-01-01T00:00:00+00:00"))

    @property
    def versions(self) -> dict[str, str]:
        found = self.artifact.manifest.get("versions")
        return {str(name): str(one) for name, one in found.items()} if isinstance(found, dict) else {}

    @property
    def digest(self) -> str:
        """The SHA-256 of the manifest, which holds those of all files."""
        return sha256(self.artifact.path / MANIFEST)

    @property
    def names(self) -> list[str]:
        """Every file of the build, the manifest last."""
        return [*sorted(self.artifact.files), MANIFEST]

    @property
    def told(self) -> dict[str, str]:
        """For tables of names and values."""
        keys = ("recipe", "weights", "seed", "command")
        found = {key: str(self.artifact.manifest[key]) for key in keys if key in self.artifact.manifest}
        return {**found, "targets": ", ".join(map(str, self.artifact.manifest.get("targets", ())))}


def read_facts(path: str | Path) -> Facts:
    """Of the folder of a build, after all of its files were checked.

    Raises:
        UserError: it is none, or a file is not what the build wrote.
    """
    artifact = open_artifact(path)
    if not artifact.is_folder:
        raise UserError(f"{path} is a file: expected the folder of a build")
    check_folder(artifact.path)
    report = _report(artifact.path / REPORT)
    data = report.get("data") or {}
    return Facts(artifact, _figures(report), str(data.get("evaluation", "")), int(data.get("evaluation_images", 0)))


def _report(path: Path) -> dict[str, Any]:
    if not is_file(path):
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path} cannot be read ({error}): build again to replace it") from None
    return found if isinstance(found, dict) else {}


def _figures(report: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    rows = [row for row in report.get("rows", ()) if row.get("deployed") and not row.get("not_run")]
    if not rows:
        return {}
    row, titles = rows[0], _titles(report)
    of_labels = [(one, str(report.get("data", {}).get("evaluation", "labels"))) for one in row.get("labelled", ())]
    of_original = [(one, "against the original") for one in (row.get("original") or {}).get("figures", ())]
    return {
        titles.get(one["name"], one["name"]): {"value": one["value"], "interval": one.get("interval"), "of": of}
        for one, of in (*of_labels, *of_original)
        if one.get("value") is not None
    }


def _titles(report: Mapping[str, Any]) -> dict[str, str]:
    figures = [figure for output in report.get("outputs", ()) for figure in output.get("figures", ())]
    return {one["name"]: f"{one['title']} ({one['unit']})" if one.get("unit") else one["title"] for one in figures}
