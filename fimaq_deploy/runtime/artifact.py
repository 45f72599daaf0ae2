"""A build where it is deployed: its folder, or one exported file, with the contract of its input."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fimaq_deploy.contract import Contract, read_contract
from fimaq_deploy.errors import UserError, shown
from fimaq_deploy.files.whole import is_file
from fimaq_deploy.manifest import MANIFEST, check_file, read_manifest
from fimaq_deploy.runtime.onnx_metadata import contract_in

REPORT = "report.json"
_TAR, _TAR_AT = b"ustar", 257  # where its first header says so
_WANTED = "expected the folder of a build, or an ONNX file that fimaq-deploy exported"


@dataclass(frozen=True)
class Artifact:
    """path: the folder, or the file alone. manifest: empty for a file alone."""

    path: Path
    contract: Contract
    manifest: Mapping[str, Any] = field(default_factory=dict, repr=False)

    @property
    def is_folder(self) -> bool:
        return bool(self.manifest)

    @property
    def folder(self) -> Path:
        return self.path if self.is_folder else self.path.parent

    @property
    def name(self) -> str:
        """Of the model, for tables; of a bare ONNX file its own, without where it lay."""
        told = str(self.manifest.get("model") or self.path.stem)
        return Path(told).stem if told.endswith(".onnx") and ":" not in told else told

    @property
    def files(self) -> list[str]:
        """Names of the files of the build."""
        return list(self.manifest["files"]) if self.is_folder else [self.path.name]

    def latency_ms(self, target: str) -> float | None:
        """The median for one image that the build measured on its machine; None where it did not."""
        return self._measured().get(target)

    def _measured(self) -> dict[str, float]:
        path = self.folder / REPORT
        if not self.is_folder or not is_file(path):
            return {}
        check_file(path)
        try:
            rows = json.loads(path.read_text(encoding="utf-8"))["rows"]
            return {
                str(row["id"]): float(one["p50_ms"])
                for row in rows
                for one in row.get("latency") or ()
                if one["batch_size"] == 1
            }
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return {}  # of another version: nothing depends on it


def open_artifact(path: str | Path | Artifact) -> Artifact:
    """The folder of a build, or an ONNX file; what is open already comes back as it is.

    Raises:
        UserError: it is neither, was changed, or says nothing of its input.
    """
    if isinstance(path, Artifact):
        return path
    place = Path(path)
    if is_file(place):
        return _of_file(place)
    manifest = read_manifest(place)
    if manifest is None:
        there = "holds no " + MANIFEST if place.is_dir() else "is not there"
        raise UserError(f"{shown(str(place))} {there}: {_WANTED}")
    if "contract" not in manifest:
        raise UserError(f"{place / MANIFEST} has no contract of the input: build again with this version")
    return Artifact(place, read_contract(manifest["contract"], str(place / MANIFEST)), manifest)


def packed(path: Path) -> str:
    """What to do with a tar, in one line; empty for anything else."""
    if not is_file(path):
        return ""
    with path.open("rb") as file:
        begin = file.read(_TAR_AT + len(_TAR))
    is_tar = begin[_TAR_AT:] == _TAR or path.suffix in (".tar", ".tgz") or ".tar" in path.suffixes
    return f"{shown(str(path))} is a tar: unpack it with `fimaq-deploy unpack`, and name its folder" if is_tar else ""


def _of_file(path: Path) -> Artifact:
    if told := packed(path):
        raise UserError(told)
    if path.suffix != ".onnx":
        raise UserError(f"{shown(str(path))} says nothing of its input: {_WANTED}")
    contract = contract_in(path)
    if contract is None:
        raise UserError(f"{path} has no contract of its input in metadata_props: {_WANTED}")
    return Artifact(path, contract)
