"""Gradients at every block's output, pulled back through blocks that are recorded once and not once for each.

A block's measurements run all blocks after it, in full precision and forwards as well as backwards. Those of the next
block run the same ones but the first. On the host a chain of few numbers is therefore recorded in parts, a block's way
forward and its way back, and a measurement runs the parts that it needs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from fimaq_deploy.calibration.device import is_host
from fimaq_deploy.calibration.learning.gradients import answer_of, divergence_gradient
from fimaq_deploy.calibration.learning.outputs import Divergence
from fimaq_deploy.calibration.recording import WORTH_RECORDING, here, run, taped
from fimaq_deploy.models.families.roles import Stage

_Calls = list[Callable[[], Any]]


class ChainGradients:
    """`gradients.divergence_gradient` at the outputs of any stage of a chain, with the same numbers.

    Positions come in rising order: what lies before one is forgotten. Stages behind a position must stay as they are.
    """

    def __init__(self, stages: Sequence[Stage], temperature: float, divergence: Divergence) -> None:
        self._stages, self._temperature, self._divergence = stages, temperature, divergence
        self._recorded: dict[object, _Recorded] = {}

    def at(self, position: int, output: Tensor, reference: Tensor) -> Tensor:
        """Of the divergence from `reference` (B, columns), at the output (B, ...) of a stage; shaped like it."""
        found = self._parts(position, output, reference) if self._records(position, output) else None
        if found is not None:
            return found.gradient(position, output, reference)
        suffix = answer_of(self._stages[position + 1 :], self._stages[position].tap)
        return divergence_gradient(suffix, output, reference, self._temperature, self._divergence)

    def forget(self) -> None:
        """Give back what recordings keep."""
        self._recorded.clear()

    def _records(self, position: int, output: Tensor) -> bool:
        """Whether that gains more than it keeps in memory, and is the same: what autocast has cast is not."""
        stages = self._stages[position:]
        small = output.numel() * len(stages) <= WORTH_RECORDING
        whole = not any(stage.tap for stage in stages)  # taps hand out more than the last output
        return small and whole and is_host(output.device) and not torch.is_autocast_enabled("cpu")

    def _parts(self, position: int, output: Tensor, reference: Tensor) -> _Recorded | None:
        form = len(output), output.dtype, reference.shape, reference.dtype
        found = self._recorded.get(form)
        if found is None or not found.holds(position):
            found = _Recorded(self._stages, position, self._temperature, self._divergence, output, reference)
            self._recorded[form] = found
        return found if found.takes(position, output) else None


class _Recorded:
    """Parts of a chain for batches of one size, from behind a stage on.

    A stage's output lies where the recording left it: a measurement at that stage writes its own there.
    """

    def __init__(
        self,
        stages: Sequence[Stage],
        position: int,
        temperature: float,
        divergence: Divergence,
        output: Tensor,
        reference: Tensor,
    ) -> None:
        self._first, self._last = position, len(stages) - 1
        self._reference = reference.detach().clone()
        self._held = {n: _places(stages[n].module) for n in range(position + 1, len(stages))}
        outputs, forward, gradients, back = [output.detach().clone().requires_grad_()], [], {}, {}

        def note(number: int, gradient: Tensor) -> None:
            gradients[number], back[number] = gradient, here()

        def step() -> None:
            with torch.enable_grad():
                x = outputs[0]
                for number in range(position + 1, len(stages)):
                    if number > position + 1:
                        x.register_hook(lambda gradient, before=number - 1: note(before, gradient))
                        outputs.append(x)
                    forward.append(here())
                    x = stages[number].module(x)
                forward.append(here())
                loss = divergence(x, self._reference, temperature) * len(output)
                back[self._last] = here()
            note(position, torch.autograd.grad(loss, outputs[0])[0])

        _, tape = taped(step)
        self._able = tape.calls is not None
        if not self._able:
            return
        self._outputs = {position + n: tape.meant(each) for n, each in enumerate(outputs)}
        self._gradients = {number: tape.meant(each) for number, each in gradients.items()}
        numbers = range(position + 1, len(stages))
        self._forward = {n: tape.part(*forward[n - position - 1 :][:2]) for n in numbers}
        self._loss = tape.part(forward[-1], back[self._last])
        self._back = {n: tape.part(back[n], back[n - 1]) for n in numbers}
        self._joined: _Calls = []
        self._at: int | None = None

    def holds(self, position: int) -> bool:
        """Whether it was recorded from there or before, and nothing of what it reads has been moved."""
        if position < self._first:
            return False
        if self._able and position != self._at:
            return all(_in_place(self._held[n]) for n in range(position + 1, self._last + 1))
        return True

    def takes(self, position: int, output: Tensor) -> bool:
        """Whether a stage's output is of the form of the recorded one."""
        if not self._able:
            return False
        there = self._outputs.get(position)
        return there is not None and there.shape == output.shape and there.stride() == output.stride()

    def gradient(self, position: int, output: Tensor, reference: Tensor) -> Tensor:
        if position != self._at:
            self._move(position)
        self._outputs[position].copy_(output)
        self._reference.copy_(reference)
        run(self._joined)
        return self._gradients[position].clone()

    def _move(self, position: int) -> None:
        """Take what a position needs, and forget what lies before it."""
        behind = range(position + 1, self._last + 1)
        for parts in (self._forward, self._back, self._outputs, self._gradients, self._held):
            for number in [n for n in parts if n < position]:
                del parts[number]
        forward, back = (self._forward[n] for n in behind), (self._back[n] for n in reversed(behind))
        self._joined, self._at = [*chain.from_iterable(forward), *self._loss, *chain.from_iterable(back)], position


# Of a parameter or buffer: where its module looks it up, its name there, itself and its address.
_Place = tuple[dict[str, Any], str, Tensor, int]


def _places(module: nn.Module) -> list[_Place]:
    """Of everything that a module computes with."""
    return [
        (owner, name, tensor, tensor.data_ptr())
        for each in module.modules()
        for owner in (each._parameters, each._buffers)
        for name, tensor in owner.items()
        if tensor is not None
    ]


def _in_place(places: list[_Place]) -> bool:
    return all(owner.get(name) is tensor and tensor.data_ptr() == address for owner, name, tensor, address in places)
