"""A build in the form that others take."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fimaq_deploy.errors import UserError, shown
from fimaq_deploy.files.whole import whole_folder, written_whole
from fimaq_deploy.packaging.archive import write_tar
from fimaq_deploy.packaging.bom import BOM, bill_of_materials
from fimaq_deploy.packaging.card import write_hub_folder
from fimaq_deploy.packaging.facts import Facts, read_facts
from fimaq_deploy.packaging.oci import write_layout
from fimaq_deploy.packaging.signing import signature_of
from fimaq_deploy.packaging.triton import write_repository
from fimaq_deploy.packaging.whole import write_whole_model
from fimaq_deploy.runtime.signature import SIGNATURE

FORMATS = ("triton", "tar", "hf", "oci", "whole")


@dataclass(frozen=True)
class Package:
    """out: the folder or file. notes: what a user should know."""

    format: str
    out: Path
    notes: tuple[str, ...] = ()

    def document(self) -> dict[str, Any]:
        """For programs."""
        told = {"format": self.format, "out": str(self.out), "notes": list(self.notes)}
        return {"schema": "fimaq-deploy/package/1", **told}


def package(
    artifact: str | Path,
    format: str,
    *,
    out: str | Path | None = None,
    target: str | None = None,
    batch: int = 32,
    base_model: str | None = None,
    pixels: bool = False,
    sign: str | Path | None = None,
) -> Package:
    """Check a build and write it in another form, with a bill of materials in it (bom.cdx.json).

    format: triton, a model repository; tar, one file; hf, a folder for a model hub; oci, an image layout; whole, a
        detector or segmenter as one ONNX file in a folder.
    out: the folder, or the file of a tar, which must not exist; None is beside the build, NAME.FORMAT.
    target, batch: of triton: what the server runs, and the most images at once.
    pixels: of triton: serve the file that takes uint8 pixels, of a build with embed_preprocessing.
    base_model: of hf: the hub's name of the original model.
    sign: a private key in PEM, by which all files of the build are signed (model.sig); not of triton and whole, which
        hold other files.

    Raises:
        UserError: no build, one that was changed, a place that is taken, or an option that the format does not take.
    """
    _check_options(format, target, batch, base_model, pixels)
    if sign is not None and format in ("triton", "whole"):
        raise UserError(f"--sign is not for --format {format}, which holds other files than the build: verify first")
    facts = read_facts(artifact)
    place = Path(out) if out is not None else _beside(Path(artifact), format)
    if os.path.lexists(place):
        raise UserError(f"{shown(str(place))} exists: name another place with --out, or remove it")
    more = {BOM: (json.dumps(bill_of_materials(facts), indent=1) + "\n").encode()}
    if sign is not None:
        more[SIGNATURE] = signature_of(facts, sign)
    if format == "tar":
        with written_whole(place) as beside:
            notes = write_tar(facts, beside, more)
    elif format == "oci":
        with whole_folder(place) as folder:
            notes = write_layout(facts, folder, more)
    else:
        with whole_folder(place) as folder:
            notes = _with_more(folder, more, _writer(format, facts, target, batch, base_model, pixels))
    return Package(format, place, tuple(notes))


def _beside(artifact: Path, format: str) -> Path:
    """NAME.FORMAT beside a build, also where that is the current folder and its name is not told."""
    named = artifact if artifact.name not in ("", "..") else artifact.resolve()
    return named.with_name(f"{named.name}.{format}")


def _check_options(format: str, target: str | None, batch: int, base_model: str | None, pixels: bool) -> None:
    if format not in FORMATS:
        raise UserError(f"--format {shown(format)}: expected one of {', '.join(FORMATS)}")
    if format != "triton" and (target is not None or batch != 32 or pixels):
        raise UserError(f"--target, --batch and --pixels are for --format triton, not for {format}")
    if format != "hf" and base_model is not None:
        raise UserError(f"--base-model is for --format hf, not for {format}")
    if base_model is not None and (base_model.count("/") != 1 or not base_model.strip("/") == base_model):
        raise UserError(f"--base-model {shown(base_model)}: expected OWNER/NAME, as the hub calls it")


def _writer(
    format: str, facts: Facts, target: str | None, batch: int, base_model: str | None, pixels: bool
) -> Callable[[Path], list[str]]:
    if format == "triton":
        return lambda folder: write_repository(facts, folder, target=target, batch=batch, pixels=pixels)
    if format == "whole":
        return lambda folder: write_whole_model(facts, folder)
    return lambda folder: write_hub_folder(facts, folder, base_model=base_model)


def _with_more(folder: Path, more: Mapping[str, bytes], write: Callable[[Path], list[str]]) -> list[str]:
    notes = write(folder)
    inner = sorted(path for path in folder.iterdir() if path.is_dir())  # a repository holds folders of models alone
    for name, data in more.items():
        (next(iter(inner), folder) / name).write_bytes(data)
    return notes
