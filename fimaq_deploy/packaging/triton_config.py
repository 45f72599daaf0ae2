"""The text of Triton's `config.pbtxt`: protobuf's text format of `ModelConfig`.

https://github.com/triton-inference-server/server/blob/main/docs/user_guide/model_configuration.md. Dimensions are those
of one image where the server batches requests, and of a whole request where it does not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fimaq_deploy.contract import Contract, Output
from fimaq_deploy.errors import UserError

_TYPES = {"float32": "FP32", "float16": "FP16", "uint8": "UINT8", "int8": "INT8", "int32": "INT32", "int64": "INT64"}
_TYPES |= {"float64": "FP64", "int16": "INT16", "bool": "BOOL"}


@dataclass(frozen=True)
class Backend:
    """What runs a file. name: of Triton. kind: where. file: of the build. stored: its name in the repository.

    batches: whether the server may put requests together in front of it.
    """

    name: str
    kind: str
    file: str
    stored: str
    batches: bool = True


@dataclass(frozen=True)
class Tensor:
    """dtype: NumPy's name. dims: None where a side is free. labels: a file of names, or none."""

    name: str
    dtype: str
    dims: tuple[int | None, ...]
    labels: str = ""

    def text(self) -> str:
        """Raises UserError for a type that Triton does not have."""
        if self.dtype not in _TYPES:
            raise UserError(f"output {self.name} is {self.dtype}, which Triton has no type for")
        fields = {"name": _text(self.name), "data_type": f"TYPE_{_TYPES[self.dtype]}"}
        fields["dims"] = _list([-1 if side is None else side for side in self.dims] or [1])
        if self.labels:
            fields["label_filename"] = _text(self.labels)
        return _message(**fields)


def image_of(contract: Contract) -> Tensor:
    """One image as a file reads it."""
    return Tensor(contract.input_name, "uint8" if contract.pixels else "float32", contract.input_shape[1:])


def answers_of(contract: Contract, labels: str = "") -> list[Tensor]:
    """What a file answers of one image. labels: the file that names the classes, where there is one."""
    classes = first_classes(contract)
    return [_answer(one, labels if one is classes else "") for one in contract.outputs]


def first_classes(contract: Contract) -> Output | None:
    return next((one for one in contract.outputs if one.kind == "classes"), None)


def _answer(output: Output, labels: str) -> Tensor:
    return Tensor(output.name, output.dtype, output.shape, labels)


def model(name: str, backend: Backend, inputs: Sequence[Tensor], outputs: Sequence[Tensor], batch: int | None) -> str:
    """The configuration of a file. inputs, outputs: of one image, or of a whole request where batch is None.

    batch: the most images at once.
    """
    fields = {
        "name": _text(name),
        "backend": _text(backend.name),
        "default_model_filename": _text(backend.stored),
        "max_batch_size": str(batch or 0),
        **_inputs_and_outputs(inputs, outputs),
        "instance_group": f"[ {_message(count='1', kind=backend.kind)} ]",
        **({} if batch is None else {"dynamic_batching": _batching(batch)}),
        "model_warmup": f"[ {{ name: {_text('zeros')}, batch_size: 1, {_zeros(inputs)} }} ]",
    }
    return _lines(fields)


@dataclass(frozen=True)
class Step:
    """One model of an ensemble. inputs, outputs: what is called so in the model, by the name in the ensemble."""

    model: str
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]

    def text(self) -> str:
        maps = [("input_map", self.inputs), ("output_map", self.outputs)]
        told = [f"{field}: {_message(key=_text(k), value=_text(v))}" for field, one in maps for k, v in one.items()]
        return f"{{ model_name: {_text(self.model)}, model_version: -1, {', '.join(told)} }}"


def ensemble(name: str, inputs: Sequence[Tensor], outputs: Sequence[Tensor], steps: Sequence[Step]) -> str:
    """The configuration of models behind each other, of one image."""
    told = ", ".join(one.text() for one in steps)
    fields = {
        "name": _text(name),
        "platform": _text("ensemble"),
        "max_batch_size": "0",
        **_inputs_and_outputs(inputs, outputs),
        "ensemble_scheduling": f"{{ step: [ {told} ] }}",
    }
    return _lines(fields)


def _inputs_and_outputs(inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> dict[str, str]:
    return {
        "input": f"[ {', '.join(one.text() for one in inputs)} ]",
        "output": f"[ {', '.join(one.text() for one in outputs)} ]",
    }


def _batching(batch: int) -> str:
    preferred = [size for size in (4, 8, 16, 32) if size < batch] + [batch]
    return _message(preferred_batch_size=_list(preferred), max_queue_delay_microseconds="1000")


def _zeros(inputs: Sequence[Tensor]) -> str:
    """What the server warms up with."""
    told = []
    for one in inputs:
        dims = _list([1 if side is None else side for side in one.dims])
        zeros = _message(data_type=f"TYPE_{_TYPES[one.dtype]}", dims=dims, zero_data="true")
        told.append(f"inputs: {_message(key=_text(one.name), value=zeros)}")
    return ", ".join(told)


def _lines(fields: Mapping[str, str]) -> str:
    return "".join(f"{field}: {value}\n" for field, value in fields.items())


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
