"""The compiled layer plan that TensorRT's builder prints at its VERBOSE level with DETAILED profiling.

One line a kernel, in execution order: its name, its kind, the tensors that it reads, the constants compiled into it,
the tensors that it writes, and the ONNX nodes that it computes. It is the only place that says which kernels a graph
became and that needs no GPU: TensorRT's inspector wants a deserialised engine. The format is nowhere specified; what is
read here was seen with TensorRT-RTX 1.7.1, and `Format/Datatype` in place of `Datatype` is accepted too.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from fimaq_deploy.errors import UserError

_LINE = re.compile(r"Name: (?P<name>.*?), LayerType: (?P<kind>\w+), (?P<rest>Inputs: .*)")
_PARTS = re.compile(
    r"(Inputs|Constants|Outputs): \[(.*?)\](?=, (?:Constants|Outputs|TacticName|ParameterType|StreamId))"
)
_TENSOR = re.compile(r"\{ Name: (.*?), Dimensions: \[([-\d,]*)\].*?(?:Format/)?Datatype: (\w+)")
_NODE = re.compile(r"\[ONNX Layer: ([^\]]*)\]")


@dataclass(frozen=True)
class PlanTensor:
    """A tensor of the plan. shape: -1 where it is dynamic. dtype: as the plan spells it, such as "Int8" or "Half"."""

    name: str
    shape: tuple[int, ...]
    dtype: str


@dataclass(frozen=True)
class Kernel:
    """One line of the plan. nodes: the ONNX nodes that it computes at least a part of."""

    name: str
    kind: str
    inputs: tuple[PlanTensor, ...]
    constants: tuple[PlanTensor, ...]
    outputs: tuple[PlanTensor, ...]
    nodes: tuple[str, ...]


def read_plan(log: str) -> tuple[Kernel, ...]:
    """The kernels of a builder's log, in execution order.

    Raises:
        UserError: the log holds no layer plan.
    """
    kernels = tuple(_kernels(log))
    if not kernels:
        raise UserError("the builder's log holds no layer plan: build with verbose=True, or report this version of it")
    return kernels


def _kernels(log: str) -> Iterator[Kernel]:
    for line in log.splitlines():
        found = _LINE.search(line)
        if found:
            parts = {key: tuple(_tensors(text)) for key, text in _PARTS.findall(found["rest"])}
            yield Kernel(
                name=found["name"],
                kind=found["kind"],
                inputs=parts.get("Inputs", ()),
                constants=parts.get("Constants", ()),
                outputs=parts.get("Outputs", ()),
                nodes=tuple(dict.fromkeys(_NODE.findall(found["rest"]))),
            )


def _tensors(text: str) -> Iterator[PlanTensor]:
    for name, shape, dtype in _TENSOR.findall(text):
        yield PlanTensor(name, tuple(int(size) for size in shape.split(",") if size), dtype)
