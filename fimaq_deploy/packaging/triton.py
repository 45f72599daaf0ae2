"""A model repository of Triton Inference Server: NAME/config.pbtxt, NAME/1/model.onnx (or .plan), labels.

The ONNX Runtime backend runs `model.onnx` on the CPU or, where the build is for it, on a GPU; the TensorRT backend runs
an engine of TensorRT, which has to be compiled on the same kind of GPU and in the version of the server. TensorRT-RTX
is another library, whose engines Triton does not load. Requests are batched as they come, and the server warms up with
zeros before it is ready. The input is what the contract of the file says: prepared images, or pixels.

Checked against Triton's published protobuf, as tritonclient ships it. No server was run.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from fimaq_deploy.contract import Contract, Output
from fimaq_deploy.engines.runtimes import ONNX, REFERENCE, every_runtime
from fimaq_deploy.errors import UserError, within
from fimaq_deploy.packaging.facts import Facts
from fimaq_deploy.runtime.onnx_metadata import contract_in

CONFIG = "config.pbtxt"
PIXELS_ONNX = "model.pixels.onnx"  # of a build with --embed-preprocessing
_LABELS = "labels.txt"
_TYPES = {"float32": "FP32", "float16": "FP16", "uint8": "UINT8", "int8": "INT8", "int32": "INT32", "int64": "INT64"}
_LARGEST_BATCH = 1024


@dataclass(frozen=True)
class _Backend:
    name: str
    kind: str
    file: str  # of the build
    stored: str  # in the repository


def _backends() -> dict[str, _Backend]:
    """By target: what has no engine takes the file that every runtime reads."""
    return {
        runtime.name: _Backend(
            runtime.triton,
            "KIND_CPU" if runtime.device == "cpu" else "KIND_GPU",
            runtime.file(Path()).name if runtime.compiler else ONNX,
            "model.plan" if runtime.compiler else "model.onnx",
        )
        for runtime in every_runtime()
        if runtime.triton
    }


def write_repository(
    facts: Facts, folder: Path, *, target: str | None = None, batch: int = 32, pixels: bool = False
) -> list[str]:
    """Write it into a folder, which becomes the server's `--model-repository`. Returns what a user should know.

    target: what the server runs; None takes TensorRT where the build has an engine of it, else ONNX Runtime on the CPU.
    batch: the most images at once. pixels: the file with its preprocessing inside.

    Raises:
        UserError: the build has no such file.
    """
    within("batch", batch, 1, _LARGEST_BATCH)
    backend = _backend(facts, target, pixels)
    place = folder / facts.name
    (place / "1").mkdir(parents=True)
    shutil.copyfile(facts.artifact.path / backend.file, place / "1" / backend.stored)
    contract = contract_in(facts.artifact.path / PIXELS_ONNX) if pixels else facts.artifact.contract
    assert contract is not None
    labels = contract.classes if _classes(contract) is not None else ()
    if labels:
        text = "".join(f"{' '.join(name.split())}\n" for name in labels)
        (place / _LABELS).write_text(text, encoding="utf-8")
    (place / CONFIG).write_text(config(facts.name, contract, backend, batch, bool(labels)), encoding="utf-8")
    takes = "pixels that are resized and cropped" if pixels else "prepared images"
    return [f"the server takes {takes}: the contract in the ONNX file says how"]


def _backend(facts: Facts, target: str | None, pixels: bool) -> _Backend:
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


def config(name: str, contract: Contract, backend: _Backend, batch: int, labelled: bool) -> str:
    """The text of `config.pbtxt`."""
    shape = [side or -1 for side in contract.input_shape[1:]]
    kind = "TYPE_UINT8" if contract.pixels else "TYPE_FP32"
    image = _message(name=_text(contract.input_name), data_type=kind, dims=_list(shape))
    outputs = [_output(contract, number, one, labelled) for number, one in enumerate(contract.outputs)]
    warm = _message(
        key=_text(contract.input_name),
        value=_message(data_type=kind, dims=_list(shape), zero_data="true"),
    )
    fields = {
        "name": _text(name),
        "backend": _text(backend.name),
        "default_model_filename": _text(backend.stored),
        "max_batch_size": str(batch),
        "input": f"[ {image} ]",
        "output": f"[ {', '.join(outputs)} ]",
        "instance_group": f"[ {_message(count='1', kind=backend.kind)} ]",
        "dynamic_batching": _message(
            preferred_batch_size=_list(_preferred(batch)), max_queue_delay_microseconds="1000"
        ),
        "model_warmup": f"[ {_message(name=_text('zeros'), batch_size='1', inputs=warm)} ]",
    }
    return "".join(f"{field}: {value}\n" for field, value in fields.items())


def _preferred(batch: int) -> list[int]:
    return [size for size in (4, 8, 16, 32) if size < batch] + [batch]


def _output(contract: Contract, number: int, one: Output, labelled: bool) -> str:
    if one.dtype not in _TYPES:
        raise UserError(f"output {one.name} is {one.dtype}, which Triton has no type for")
    fields = {"name": _text(one.name), "data_type": f"TYPE_{_TYPES[one.dtype]}"}
    fields["dims"] = _list([side or -1 for side in one.shape] or [1])
    if labelled and number == _classes(contract):
        fields["label_filename"] = _text(_LABELS)
    return _message(**fields)


def _classes(contract: Contract) -> int | None:
    return next((number for number, one in enumerate(contract.outputs) if one.kind == "classes"), None)


def _message(**fields: str) -> str:
    return "{ " + ", ".join(f"{name}: {value}" for name, value in fields.items()) + " }"


def _list(numbers: Sequence[int]) -> str:
    return f"[ {', '.join(map(str, numbers))} ]"


def _text(value: str) -> str:
    """A string of protobuf's text format, whatever letters it has."""
    return (
        '"'
        + "".join(chr(byte) if 32 <= byte < 127 and byte not in b'"\\' else f"\\{byte:03o}" for byte in value.encode())
        + '"'
    )
