"""A detector or a segmenter as one ONNX file: the encoder of a build, and behind it what stands there, in floats."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np

from fimaq_deploy.contract import KEY, Contract, Output
from fimaq_deploy.engines.onnxruntime import open_session
from fimaq_deploy.engines.runtimes import ONNX
from fimaq_deploy.errors import UserError
from fimaq_deploy.packaging.facts import Facts
from fimaq_deploy.runtime.head import Answer, HeadRunner, differences, load_head, matched, remembered
from fimaq_deploy.runtime.replay import REPLAY, Array, Replay

LABELS = "labels.txt"
_IMAGES = 4


def write_whole_model(facts: Facts, folder: Path) -> list[str]:
    """Write NAME.onnx, checked beside the two files, and the names of its classes.

    Raises:
        UserError: the build has no head, the two files cannot be joined, or one answers something else than both.
    """
    contract, artifact = facts.artifact.contract, facts.artifact
    if contract.head is None:
        kind = "is the whole model already" if not contract.part else "is an encoder, and nothing stands behind it here"
        raise UserError(f"--format whole joins {ONNX} with head.onnx: this build's {ONNX} {kind}")
    if ONNX not in artifact.files:
        raise UserError(f"--format whole joins {ONNX} with {contract.head.file}: the build holds no {ONNX}")
    from fimaq_deploy.graph.joined import join  # needs onnx

    runner, path = load_head(artifact), folder / f"{facts.name}.onnx"
    given = matched([one.name for one in contract.outputs], [one.name for one in runner.inputs])
    told = json.dumps(_contract(contract, runner).document())
    join(artifact.path / ONNX, artifact.path / contract.head.file, path, given, {KEY: told})
    _check(facts, runner, path)
    if contract.head.classes:
        lines = "".join(f"{' '.join(name.split())}\n" for name in contract.head.classes)
        (folder / LABELS).write_text(lines, encoding="utf-8")
    return [f"{path.name} takes one prepared image a run and answers {', '.join(one.name for one in runner.outputs)}"]


def _contract(contract: Contract, runner: HeadRunner) -> Contract:
    """Of the whole: the encoder's input, and the head's outputs, which have no batch."""
    assert contract.head is not None
    kind = contract.head.kind
    outputs = tuple(Output(one.name, one.dtype, one.shape, kind) for one in runner.outputs)
    return replace(contract, part="", head=None, outputs=outputs, classes=contract.head.classes)


def _check(facts: Facts, runner: HeadRunner, path: Path) -> None:
    """On images that the build kept, else on one of noise."""
    encoder, whole = (open_session(file) for file in (facts.artifact.path / ONNX, path))
    names, image = [one.name for one in encoder.get_outputs()], encoder.get_inputs()[0].name
    outputs = [one.name for one in runner.outputs]
    for one in _images(facts):
        maps = dict(zip(names, encoder.run(names, {image: one}), strict=True))
        answer: Answer = dict(zip(outputs, whole.run(outputs, {image: one}), strict=True))
        parted = next(differences([remembered(answer)], list(map(remembered, runner(maps)))), None)
        if parted:
            raise UserError(f"one file does not answer what {ONNX} and head.onnx do, {parted}: ship both")


def _images(facts: Facts) -> Array:
    """(images, 1, C, H, W): each a batch of its own."""
    artifact = facts.artifact
    if REPLAY in artifact.files:
        return Replay.load(artifact.path / REPLAY).images[:_IMAGES, None]
    shape = (1, 1, *artifact.contract.shape)
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)
