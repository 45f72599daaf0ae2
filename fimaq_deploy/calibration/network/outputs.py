"""What a model returns, whatever its form: a tensor, a sequence, a mapping, a dataclass of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from torch import Tensor

from fimaq_deploy.errors import UserError


def tensors_of(output: Any) -> dict[str, Tensor]:
    """The tensors of an output by name, in order; a single tensor is called "output".

    Raises:
        UserError: it holds none.
    """
    found = dict(_walk(output, ""))
    if not found:
        raise UserError(f"the model returns {type(output).__name__} without tensors: expected one or several tensors")
    return {name or "output": tensor for name, tensor in found.items()}


def _walk(output: Any, prefix: str) -> Iterator[tuple[str, Tensor]]:
    if isinstance(output, Tensor):
        yield prefix, output
    elif isinstance(output, Mapping):
        for name, one in output.items():
            yield from _walk(one, f"{prefix}.{name}" if prefix else str(name))
    elif isinstance(output, Sequence) and not isinstance(output, str | bytes):
        for number, one in enumerate(output):
            yield from _walk(one, f"{prefix}.{number}" if prefix else f"output_{number}")
