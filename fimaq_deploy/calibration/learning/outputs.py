"""What a model returns, whatever its form, as one matrix that learning can compare with another.

Class logits are compared by KL divergence; everything else (embeddings, tokens, maps, regressions, several outputs) by
its squared error over its own power, which is the same thing for a Gaussian: a softmax over features, or over the one
column of a regression, would mean nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from fimaq_deploy.calibration.learning.fisher import kl_divergence, softmax_fisher
from fimaq_deploy.errors import UserError
from fimaq_deploy.models.families.roles import Stage

# Of two outputs (B, columns), current and full-precision, at a temperature: a scalar.
Divergence = Callable[[Tensor, Tensor, float], Tensor]


@dataclass(frozen=True)
class Part:
    """One tensor of an output. columns: its numbers for an image. power: the mean square of them."""

    name: str
    kind: Literal["classes", "values"]
    columns: int
    power: float

    def divergence(self, output: Tensor, reference: Tensor, temperature: float) -> Tensor:
        if self.kind == "classes":
            return kl_divergence(output, reference, temperature)
        return (output - reference).square().mean() / (2 * self.power)

    def second_order(self, d: Tensor, reference: Tensor) -> Tensor:
        return softmax_fisher(d, reference) if self.kind == "classes" else d.square().mean() / (2 * self.power)


@dataclass(frozen=True)
class Outputs:
    """The form of a model's output."""

    parts: tuple[Part, ...]

    @classmethod
    def of(cls, output: Any, classes: int) -> Outputs:
        """Of one batch's output. classes: how many the model knows, 0 for none.

        Raises:
            UserError: it holds no tensor with one row an image.
        """
        found = tensors_of(output)
        return cls(tuple(_part(name, tensor, classes) for name, tensor in found.items()))

    @property
    def is_plain(self) -> bool:
        """Whether a model returns class logits and nothing else."""
        return len(self.parts) == 1 and self.parts[0].kind == "classes"

    def joined(self, output: Any) -> Tensor:
        """All tensors side by side, (B, columns)."""
        if self.is_plain and isinstance(output, Tensor):
            return output
        return torch.cat([tensor.flatten(1) for tensor in tensors_of(output).values()], dim=1)

    def divergence(self, output: Tensor, reference: Tensor, temperature: float) -> Tensor:
        """How far apart two joined outputs are, a scalar: the sum over the parts."""
        if self.is_plain:
            return kl_divergence(output, reference, temperature)
        return torch.stack([part.divergence(*two, temperature) for part, two in self._pairs(output, reference)]).sum()

    def second_order(self, d: Tensor, reference: Tensor) -> Tensor:
        """The divergence of a small deviation d of joined outputs to second order, at temperature 1."""
        if self.is_plain:
            return softmax_fisher(d, reference)
        return torch.stack([part.second_order(*two) for part, two in self._pairs(d, reference)]).sum()

    def _pairs(self, one: Tensor, other: Tensor) -> Iterator[tuple[Part, tuple[Tensor, Tensor]]]:
        """Of each part that `one` has: of a chain that hands out several, those from some stage on are the last."""
        columns, parts = one.shape[1], list(self.parts)
        while sum(part.columns for part in parts) > columns:
            del parts[0]
        sizes, other = [part.columns for part in parts], other[:, -columns:]
        yield from zip(parts, zip(one.split(sizes, 1), other.split(sizes, 1), strict=True), strict=True)

    def joining(self, model: nn.Module) -> nn.Module:
        """The model with its output joined."""
        return model if self.is_plain else Joined(model, self)

    def stages(self, stages: Sequence[Stage]) -> list[Stage]:
        """The chain with the last stage's output joined, and each that it hands out before."""
        if self.is_plain:
            return list(stages)
        *others, last = stages
        taps = (None if one.tap is None else Joined(one.tap, self) for one in others)
        before = [Stage(one.name, one.module, tap) for one, tap in zip(others, taps, strict=True)]
        return [*before, Stage(last.name, Joined(last.module, self))]


def _part(name: str, tensor: Tensor, classes: int) -> Part:
    if tensor.ndim < 2 and tensor.numel() != len(tensor):
        raise UserError(f"the model's output '{name}' has shape {tuple(tensor.shape)}: expected one row an image")
    kind: Literal["classes", "values"] = "classes" if tensor.ndim == 2 and tensor.shape[1] == classes > 1 else "values"
    power = tensor.float().square().mean().clamp(min=1e-12).item()
    return Part(name, kind, tensor[0].numel(), power)


class Joined(nn.Module):
    """A model or a last stage whose output is one matrix."""

    def __init__(self, module: nn.Module, outputs: Outputs) -> None:
        super().__init__()
        self.module, self._outputs = module, outputs

    def forward(self, x: Tensor) -> Tensor:
        return self._outputs.joined(self.module(x))

    def features(self, x: Tensor) -> Tensor:
        """The penultimate feature."""
        return self.module.features(x)  # type: ignore[operator]


def tensors_of(output: Any) -> dict[str, Tensor]:
    """The floating-point tensors of an output by name, in order; a single tensor is called "output".

    Raises:
        UserError: it holds none.
    """
    found = {name or "output": tensor for name, tensor in _walk(output, "") if tensor.is_floating_point()}
    if not found:
        raise UserError(f"the model returns {type(output).__name__} without tensors: expected one or several tensors")
    return found


def _walk(output: Any, prefix: str) -> Iterator[tuple[str, Tensor]]:
    if isinstance(output, Tensor):
        yield prefix, output
    elif isinstance(output, Mapping):
        for name, one in output.items():
            yield from _walk(one, f"{prefix}.{name}" if prefix else str(name))
    elif isinstance(output, Sequence) and not isinstance(output, str | bytes):
        for number, one in enumerate(output):
            yield from _walk(one, f"{prefix}.{number}" if prefix else f"output_{number}")
