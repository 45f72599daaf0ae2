"""A model repository of Triton Inference Server: NAME/config.pbtxt, NAME/1/model.onnx (or .plan), labels.

The ONNX Runtime backend runs `model.onnx` on the CPU or, where the build is for it, on a GPU; the OpenVINO backend runs
it on the CPU; the TensorRT backend runs an engine of TensorRT, which has to be compiled on the same kind of GPU and in
the version of the server. TensorRT-RTX is another library, whose engines Triton does not load. The server warms up with
zeros before it is ready. The input is what the contract of the file says: prepared images, or pixels.

Requests are batched as they come, but not in front of OpenVINO: with a `max_batch_size` its backend takes requests of
just that size, or fills every one up to it (`ENABLE_BATCH_PADDING`), so there the batch is the request's own.

Checked against Triton's published protobuf, as tritonclient ships it. No server was run.
"""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

from fimaq_deploy.engines.runtimes import ONNX, REFERENCE, every_runtime
from fimaq_deploy.errors import UserError, within
from fimaq_deploy.packaging.facts import Facts
from fimaq_deploy.packaging.triton_config import Backend, Tensor, answers_of, first_classes, image_of, model
from fimaq_deploy.runtime.onnx_metadata import contract_in

CONFIG = "config.pbtxt"
PIXELS_ONNX = "model.pixels.onnx"  # of a build with --embed-preprocessing
BATCH = 32
_LABELS = "labels.txt"
_LARGEST_BATCH = 1024
_UNBATCHED = ("openvino",)


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
    place = folder / facts.name
    (place / "1").mkdir(parents=True)
    _copy(facts, backend, place / "1")
    labels = _LABELS if contract.classes and first_classes(contract) else ""
    if labels:
        text = "".join(f"{' '.join(name.split())}\n" for name in contract.classes)
        (place / _LABELS).write_text(text, encoding="utf-8")
    inputs, outputs = [image_of(contract)], answers_of(contract, labels)
    if not backend.batches:
        inputs, outputs = _whole(inputs), _whole(outputs)
    text = model(facts.name, backend, inputs, outputs, batch if backend.batches else None)
    (place / CONFIG).write_text(text, encoding="utf-8")
    takes = "pixels that are resized and cropped" if pixels else "prepared images"
    own = [] if backend.batches else [f"the server puts no requests together in front of {backend.name}"]
    return [f"the server takes {takes}: the contract in the ONNX file says how", *own]


def _copy(facts: Facts, backend: Backend, folder: Path) -> None:
    """The file, and the numbers beside it, which it knows by their name in the build."""
    shutil.copyfile(facts.artifact.path / backend.file, folder / backend.stored)
    beside = f"{backend.file}.data"
    if beside in facts.artifact.files:
        shutil.copyfile(facts.artifact.path / beside, folder / beside)


def _whole(tensors: list[Tensor]) -> list[Tensor]:
    """With their batch, which is free."""
    return [replace(one, dims=(None, *one.dims)) for one in tensors]


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
