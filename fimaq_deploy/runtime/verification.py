"""Whether an artifact is what was built, and whether this machine computes with it what the build measured.

1. every file has the size and SHA-256 of the manifest, and the manifest its own;
2. every ONNX file says the same of its input as the manifest;
3. the preprocessing here makes of a drawn picture what the builder's made of it, bit by bit;
4. every target of the build that runs here is run on the images that the build kept (`runtime.replay`).

How the last is judged is `runtime.replayed`.

5. where a key is given: the files are those that its owner signed (`runtime.signature`).

Somebody who changes files and manifest alike is found by the last alone.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from fimaq_deploy.contract import Contract, read_contract
from fimaq_deploy.engines.runtimes import Runtime, every_runtime, find_runtime
from fimaq_deploy.errors import UserError, shown
from fimaq_deploy.manifest import MANIFEST, faults, read_manifest
from fimaq_deploy.runtime.artifact import Artifact, open_artifact, packed
from fimaq_deploy.runtime.head import differences, load_head, remembered
from fimaq_deploy.runtime.onnx_metadata import contract_in
from fimaq_deploy.runtime.preprocessing import Preparation
from fimaq_deploy.runtime.replay import REPLAY, Replay
from fimaq_deploy.runtime.replayed import AS_WRITTEN, Replayed, run_again
from fimaq_deploy.runtime.signature import SIGNATURE, signature_problems


@dataclass(frozen=True)
class Verification:
    """problems: what differs, as sentences; nothing where the artifact is good. notes: what does not decide."""

    artifact: Path
    files: int
    problems: tuple[str, ...]
    notes: tuple[str, ...] = ()
    replayed: tuple[Replayed, ...] = field(default=())

    @property
    def good(self) -> bool:
        return not self.problems

    def document(self) -> dict[str, Any]:
        """For programs. A number that is not finite is null."""
        replayed = [{name: _finite(value) for name, value in asdict(one).items()} for one in self.replayed]
        return {
            "schema": "fimaq-deploy/verify/1",
            "artifact": str(self.artifact),
            "good": self.good,
            "files": self.files,
            "problems": list(self.problems),
            "notes": list(self.notes),
            "replayed": replayed,
        }


def verify_artifact(
    artifact: str | Path,
    *,
    targets: Sequence[str] | None = None,
    threads: int | None = None,
    time: bool = True,
    key: str | Path | None = None,
) -> Verification:
    """Check the folder of a build on this machine.

    targets: what to run; None takes every one of the build that runs here. threads: of a CPU; None is the engine's own
    choice. time: measure the latency too. key: a public key in PEM by whose owner the build has to be signed.

    Raises:
        UserError: there is no build, or a target that is asked for is unknown.
    """
    folder = Path(artifact)
    asked = None if targets is None else [find_runtime(name) for name in targets]
    try:
        manifest = read_manifest(folder)
    except UserError as error:
        return Verification(folder, 0, (str(error), *_raw_differences(folder)))
    if manifest is None:
        raise UserError(packed(folder) or f"{shown(str(folder))} is not the folder of a build: it holds no {MANIFEST}")
    damaged = faults(folder, manifest)
    problems = [*damaged.values(), *([] if key is None else signature_problems(folder, key))]
    replayed: list[Replayed] = []
    notes = [*_strangers(folder, manifest), *_versions(manifest)]
    try:
        opened = open_artifact(folder)
    except UserError as error:
        problems.append(str(error))
    else:
        head = {opened.contract.head.file} if opened.contract.head else set()
        problems += _contract_differences(opened.contract, folder, set(manifest["files"]) - set(damaged) - head)
        found = _replays(opened, damaged, asked, threads, time)
        problems += found.problems
        replayed, notes = found.done, notes + found.notes
    return Verification(folder, len(manifest["files"]), tuple(problems), tuple(notes), tuple(replayed))


def _strangers(folder: Path, manifest: Mapping[str, Any]) -> Iterator[str]:
    others = sorted(
        path.name for path in folder.iterdir() if path.name not in {*manifest["files"], MANIFEST, SIGNATURE}
    )
    if others:
        yield f"{len(others)} files are none of the build's, and nothing reads them: {shown(', '.join(others))}"


def _versions(manifest: Mapping[str, Any]) -> Iterator[str]:
    """Runtimes that are here in another version than the build ran."""
    built = manifest.get("versions")
    for package in dict.fromkeys(name for one in every_runtime() for name in one.packages):
        own, theirs = _installed(package), built.get(package) if isinstance(built, Mapping) else None
        if own and theirs and own != theirs:
            yield f"{package} {own} here, {theirs} in the build"


def _installed(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _raw_differences(folder: Path) -> list[str]:
    """Of a manifest that is not what its build wrote: what it says of the input that the files do not."""
    try:
        document = json.loads((folder / MANIFEST).read_text(encoding="utf-8-sig"))
        contract = read_contract(document["contract"], str(folder / MANIFEST))
    except (OSError, ValueError, KeyError, TypeError, RecursionError, UserError):
        return []
    return _contract_differences(contract, folder, {path.name for path in folder.glob("*.onnx")}, checked=False)


def _contract_differences(contract: Contract, folder: Path, names: set[str], *, checked: bool = True) -> list[str]:
    """What ONNX files say of their input that the manifest does not. Two files that differ alike are told once."""
    told: dict[str, list[str]] = {}
    for name in sorted(name for name in names if name.endswith(".onnx")):
        for line in _differences(contract, folder / name, checked):
            told.setdefault(line, []).append(name)
    parted = f"{MANIFEST} and {{}} say different things of the input: {{}}"
    return [parted.format(", ".join(files), line) for line, files in told.items()]


def _differences(contract: Contract, file: Path, checked: bool) -> list[str]:
    try:
        own = contract_in(file, checked=checked)
    except UserError as error:
        return [str(error)]
    if own is None:
        return ["the file has no contract"]
    # A file with its preprocessing inside takes pixels, under another name.
    return contract.differences(replace(own, pixels=contract.pixels, input_name=contract.input_name, resizing=None))


@dataclass
class _Found:
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    done: list[Replayed] = field(default_factory=list)


def _replays(
    artifact: Artifact, damaged: Mapping[str, str], asked: list[Runtime] | None, threads: int | None, time: bool
) -> _Found:
    found = _Found()
    if REPLAY not in artifact.files:
        found.notes.append("the build kept no images to replay (--replay 0)")
        return found
    if REPLAY in damaged:
        return found
    try:
        replay = Replay.load(artifact.path / REPLAY)
    except UserError as error:
        found.problems.append(str(error))
        return found
    found.problems += [*_picture_differences(artifact.contract, replay), *_head_differences(artifact, replay, damaged)]
    for runtime in every_runtime() if asked is None else asked:
        file = runtime.file(artifact.path)
        reason = runtime.unavailable()
        if file.name not in artifact.files or file.name in damaged or reason is not None:
            if asked is not None and file.name not in damaged:
                found.problems.append(f"{runtime.title} runs nothing here: {reason or f'the build has no {file.name}'}")
            continue
        try:
            one = run_again(artifact, replay, runtime, file, threads, time)
        except UserError as error:
            found.problems.append(str(error))
            continue
        found.done.append(one)
        found.problems += one.problems
        found.notes += [note for note in one.notes if note not in found.notes]
    if not found.done and not found.problems and not damaged:
        found.problems.append("no target of the build runs here: install one of its engines, see `doctor`")
    return found


def _picture_differences(contract: Contract, replay: Replay) -> list[str]:
    if replay.picture is None or replay.prepared is None:
        return []
    try:
        own = Preparation(contract)(replay.picture)
    except UserError as error:
        return [f"the preprocessing fails here: {error}"]
    if own.shape != replay.prepared.shape or own.dtype != replay.prepared.dtype:
        return [f"the preprocessing makes {own.dtype} {own.shape}, the build's {replay.prepared.shape}"]
    differing = own != replay.prepared
    if not differing.any():
        return []
    largest, share = np.abs(own - replay.prepared).max(), 100 * differing.mean()
    return [
        f"the preprocessing is not the build's: {share:.3g} % of a picture's inputs differ, by at most {largest:.3g} "
        f"(Pillow {_installed('pillow')} here)"
    ]


def _head_differences(artifact: Artifact, replay: Replay, damaged: Mapping[str, str]) -> list[str]:
    """What the head here makes of the build's maps that it did not make there."""
    head = artifact.contract.head
    if head is None or head.file in damaged or not replay.answers:
        return []
    try:
        own = load_head(artifact)(replay.rows[AS_WRITTEN])
    except (UserError, KeyError) as error:
        return [f"{head.file} does not run here: {error}"]
    return [f"{head.file}, {line}" for line in differences(list(map(remembered, own)), replay.answers)][:1]


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not np.isfinite(value) else value
