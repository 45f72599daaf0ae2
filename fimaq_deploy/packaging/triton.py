"""A model repository of Triton Inference Server: NAME/config.pbtxt, NAME/1/model.onnx (or .plan), labels.

The ONNX Runtime backend runs `model.onnx` on the CPU or, where the build is for it, on a GPU; the OpenVINO backend runs
it on the CPU; the TensorRT backend runs an engine of TensorRT, which has to be compiled on the same kind of GPU and in
the version of the server. TensorRT-RTX is another library, whose engines Triton does not load. The server warms up with
zeros before it is ready. The input is what the contract of the file says: prepared images, or pixels.

Requests are batched as they come, but not in front of OpenVINO: with a `max_batch_size` its backend takes requests of
just that size, or fills every one up to it (`ENABLE_BATCH_PADDING`), so there the batch is the request's own.

Of a detector or a segmenter, whose build holds what stands behind its encoder, NAME is an ensemble of NAME_encoder and
NAME_head. It answers one image a request, of which the encoder still runs several together.

Checked against Triton's published protobuf, as tritonclient ships it. No server was run.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from fimaq_deploy.contract import Contract
from fimaq_deploy.engines.runtimes import ONNX, REFERENCE, every_runtime
from fimaq_deploy.errors import UserError, within
from fimaq_deploy.packaging.facts import Facts
from fimaq_deploy.packaging.triton_config import (
    Backend,
    Step,
    Tensor,
    answers_of,
    ensemble,
    first_classes,
    image_of,
    model,
)
from fimaq_deploy.runtime.head import load_head, matched
from fimaq_deploy.runtime.onnx_metadata import contract_in

CONFIG = "config.pbtxt"
PIXELS_ONNX = "model.pixels.onnx"  # of a build with --embed-preprocessing
BATCH = 32
_LABELS = "labels.txt"
_LARGEST_BATCH = 1024
_UNBATCHED = ("openvino",)
_OF_ONE = (
    "it answers one image a request, whose places are those of the prepared image, {} high and {} wide; "
    f"{_LABELS} names the classes"
)


def _backends() -> dict[str, Backend]:
    """By target: what has no engine takes the file that every runtime reads."""
    return {
        runtime.name: Backend(
            runtime.triton,
            "KIND_CPU" if runtime.device == "cpu" else "KIND_GPU",
            runtime.file(Path()).name if runtime.compiler else ONNX,
            "model.plan" if runtime.compiler else "model.onnx",
            runtime.triton not in _UNBATCHED,
        )
        for runtime in every_runtime()
        if runtime.triton
    }


def write_repository(
    facts: Facts, folder: Path, *, target: str | None = None, batch: int = BATCH, pixels: bool = False
) -> list[str]:
    """Write it into a folder, which becomes the server's `--model-repository`. Returns what a user should know.

    target: what the server runs; None takes TensorRT where the build has an engine of it, else ONNX Runtime on the CPU.
    batch: the most images at once. pixels: the file with its preprocessing inside.

    Raises:
        UserError: the build has no such file.
    """
    within("batch", batch, 1, _LARGEST_BATCH)
    backend = _backend(facts, target, pixels)
    if not backend.batches and batch != BATCH:
        raise UserError(
            f"--batch is not for Triton's {backend.name} backend, where a request brings its own: leave it out"
        )
    contract = contract_in(facts.artifact.path / PIXELS_ONNX) if pixels else facts.artifact.contract
    assert contract is not None
    with_head = contract.head is not None and contract.head.file in facts.artifact.files
    name = f"{facts.name}_encoder" if with_head else facts.name
    _write_model(facts, backend, contract, folder / name, batch)
    if with_head:
        _write_ensemble(facts, contract, name, folder)
    takes = "pixels that are resized and cropped" if pixels else "prepared images"
    own = [] if backend.batches else [f"the server puts no requests together in front of {backend.name}"]
    whole = [_OF_ONE.format(*contract.shape[1:])] if with_head else []
    return [f"the server takes {takes}: the contract in the ONNX file says how", *own, *whole]


def _write_model(facts: Facts, backend: Backend, contract: Contract, place: Path, batch: int) -> None:
    (place / "1").mkdir(parents=True)
    _copy(facts, backend, place / "1")
    labels = _labels(contract.classes, place) if first_classes(contract) else ""
    inputs, outputs = [image_of(contract)], answers_of(contract, labels)
    if not backend.batches:
        inputs, outputs = _whole(inputs, None), _whole(outputs, None)
    text = model(place.name, backend, inputs, outputs, batch if backend.batches else None)
    (place / CONFIG).write_text(text, encoding="utf-8")


def _write_ensemble(facts: Facts, contract: Contract, encoder: str, folder: Path) -> None:
    """NAME_head, and NAME, which runs it behind the encoder."""
    assert contract.head is not None
    runner, file = load_head(facts.artifact), contract.head.file
    takes, gives = (
        [Tensor(one.name, one.dtype, one.shape) for one in every] for every in (runner.inputs, runner.outputs)
    )
    head = Backend("onnxruntime", "KIND_CPU", file, "model.onnx", batches=False)
    behind, place = folder / f"{facts.name}_head", folder / facts.name
    for made in (behind, place):
        (made / "1").mkdir(parents=True)
    _copy(facts, head, behind / "1")
    (behind / CONFIG).write_text(model(behind.name, head, takes, gives, None), encoding="utf-8")
    _labels(contract.head.classes, place)
    image = contract.input_name
    given = matched([one.name for one in contract.outputs], [one.name for one in takes])
    steps = [
        Step(encoder, {image: image}, {name: f"encoder.{name}" for name in given.values()}),
        Step(behind.name, {own: f"encoder.{name}" for own, name in given.items()}, _same(gives)),
    ]
    text = ensemble(facts.name, _whole([image_of(contract)], 1), gives, steps)
    (place / CONFIG).write_text(text, encoding="utf-8")


def _same(tensors: Sequence[Tensor]) -> dict[str, str]:
    return {one.name: one.name for one in tensors}


def _labels(names: Sequence[str], place: Path) -> str:
    """Write the names of classes, one a line, and return the file's; nothing where there are none."""
    if not names:
        return ""
    text = "".join(f"{' '.join(name.split())}\n" for name in names)
    (place / _LABELS).write_text(text, encoding="utf-8")
    return _LABELS


def _copy(facts: Facts, backend: Backend, folder: Path) -> None:
    """The file, and the numbers beside it, which it knows by their name in the build."""
    shutil.copyfile(facts.artifact.path / backend.file, folder / backend.stored)
    beside = f"{backend.file}.data"
    if beside in facts.artifact.files:
        shutil.copyfile(facts.artifact.path / beside, folder / beside)


def _whole(tensors: Sequence[Tensor], batch: int | None) -> list[Tensor]:
    """With their batch; None is free."""
    return [replace(one, dims=(batch, *one.dims)) for one in tensors]


def _backend(facts: Facts, target: str | None, pixels: bool) -> Backend:
    backends = _backends()
    if target is not None and target not in backends:
        raise UserError(f"Triton has no backend for target {target}: expected one of {', '.join(backends)}")
    engines = [name for name, one in backends.items() if one.stored != "model.onnx"]
    if pixels and target in engines:
        others = ", ".join(name for name in backends if name not in engines)
        raise UserError(f"an engine of {target} takes prepared images: leave --pixels out, or name one of {others}")
    built = (name for name in engines if backends[name].file in facts.artifact.files and not pixels)
    found = backends[target or next(built, REFERENCE)]
    found = replace(found, file=PIXELS_ONNX) if pixels else found
    if found.file not in facts.artifact.files:
        raise UserError(
            f"{facts.artifact.path} holds no {found.file} for Triton: build for that target, or name another"
        )
    return found
