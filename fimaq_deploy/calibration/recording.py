"""A step on the host as a list of operators, which is run again without modules, autograd and its bookkeeping.

What a device does with recorded kernels, a host can do with calls of operators: for a small block half of a step's time
is Python's modules and autograd's graph. The same operators run in the same order on the same numbers.

Everything else that Python does in a step is done once, when it is recorded. Where it matters, because it reads what
changes from step to step as a number or an attribute, it is one `node`: a function that is called again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from operator import itemgetter
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

F = TypeVar("F", bound=Callable[..., Any])

# Numbers that go into a step for which this is worth the memory: while it is recorded, nothing that it computes is
# freed. Larger ones are bound by their arithmetic.
WORTH_RECORDING = 2**16


class _Program:
    """Calls in order. Every tensor and constant has a slot; what nobody reads any more is freed."""

    def __init__(self) -> None:
        self._slots: dict[int, int] = {}
        self._kept: list[Any] = []  # so that an identity stays one tensor's
        self._start: list[Any] = []
        self._calls: list[tuple[Callable[..., Any], tuple[int, ...], int]] = []

    def call(self, function: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any], result: Any) -> None:
        function = getattr(function, "_op", function)  # an operator's own call takes as long as a small one itself
        bound = partial(function, **kwargs) if kwargs else function
        slots = tuple(self._slot(each) for each in args)
        self._kept.append(result)
        if isinstance(result, list | tuple):
            whole = self._add(bound, slots, None)
            for number, part in enumerate(result):
                if isinstance(part, Tensor):
                    self._add(itemgetter(number), (whole,), part)
        else:
            self._add(bound, slots, result)

    def same(self, result: Tensor, source: Tensor) -> None:
        """The one is the other but for autograd."""
        self._kept.append(result)
        self._slots[id(result)] = self._slot(source)

    def _add(self, function: Callable[..., Any], slots: tuple[int, ...], result: Any) -> int:
        slot = self._slots.get(id(result)) if isinstance(result, Tensor) else None
        if slot is None:
            slot = self._new(None)
            if isinstance(result, Tensor):
                self._slots[id(result)] = slot
        self._calls.append((function, slots, slot))
        return slot

    def _slot(self, value: Any) -> int:
        if isinstance(value, list | tuple) and any(isinstance(each, Tensor) for each in value):
            return self._add(_listed, tuple(self._slot(each) for each in value), None)
        if not isinstance(value, Tensor):
            return self._new(value)
        if id(value) not in self._slots:
            self._kept.append(value)
            self._slots[id(value)] = self._new(value)
        return self._slots[id(value)]

    def _new(self, value: Any) -> int:
        self._start.append(value)
        return len(self._start) - 1

    def finished(self, results: Sequence[Tensor]) -> Callable[[], tuple[Any, ...]]:
        outcome = [self._slot(each) for each in results]
        made = {slot for _, _, slot in self._calls if self._start[slot] is None}
        last = {slot: number for number, (_, slots, slot_) in enumerate(self._calls) for slot in (*slots, slot_)}
        shared = _Shared(made - {*outcome})
        calls = []
        for number, (function, slots, slot) in enumerate(self._calls):
            calls.append((function, _taker([shared.place(each) for each in slots]), shared.place(slot)))
            shared.free(each for each in {*slots, slot} if last[each] == number)
        start, places = self._start, _taker(outcome)

        def again() -> tuple[Any, ...]:
            values = start.copy()
            for function, take, slot in calls:
                values[slot] = function(*take(values))
            return tuple(places(values))

        return again


class _Shared:
    """Slots whose values are made in the step, where one that is no longer read is taken by the next value."""

    def __init__(self, slots: set[int]) -> None:
        self._slots, self._places, self._free = slots, dict[int, int](), list[int]()

    def place(self, slot: int) -> int:
        if slot not in self._slots:
            return slot
        if slot not in self._places:
            self._places[slot] = self._free.pop() if self._free else slot
        return self._places[slot]

    def free(self, slots: Iterable[int]) -> None:
        self._free += [self._places[slot] for slot in slots if slot in self._slots]


def _listed(*values: Any) -> list[Any]:
    return list(values)


def _taker(slots: Sequence[int]) -> Callable[[list[Any]], Sequence[Any]]:
    """Picks the values of slots, as quickly as can be."""
    if len(slots) > 1:
        return itemgetter(*slots)
    return itemgetter(slice(slots[0], slots[0] + 1) if slots else slice(0))


class _Recorder(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.program: _Program | None = _Program()
        self._within_a_node = False
        self._empty: tuple[Any, ...] | None = None  # the call before, if it made a tensor without numbers
        self._given: list[Tensor] = []

    def __torch_dispatch__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = function(*args, **(kwargs or {}))
        if self.program is None or self._within_a_node:
            return result
        if self._gives(function, args):
            return result
        if function is torch.ops.aten.detach.default:
            self.program.same(result, args[0])
        elif function is torch.ops.aten.new_empty_strided.default:
            self._empty = function, args, kwargs or {}, result
        elif function is torch.ops.aten._local_scalar_dense.default:
            self.program = None  # a number that may be another one next time
        else:
            self.program.call(function, args, kwargs or {}, result)
        return result

    def _gives(self, function: Any, args: tuple[Any, ...]) -> bool:
        """Whether a call copies a gradient for its parameter, which autograd hands on where nobody looks at it."""
        assert self.program is not None
        before, self._empty = self._empty, None
        if before is None:
            return False
        if function is torch.ops.aten.copy_.default and args[0] is before[-1] and self._may_give(*args[:2]):
            self._given.append(args[1])
            self.program.same(args[0], args[1])
            return True
        self.program.call(*before)
        return False

    def _may_give(self, there: Tensor, gradient: Tensor) -> bool:
        alike = there.dtype == gradient.dtype and there.stride() == gradient.stride()
        return alike and not any(each is gradient for each in self._given)

    def node(self, function: Callable[..., Any], args: tuple[Any, ...]) -> Any:
        before, self._within_a_node = self._within_a_node, True
        try:
            result = function(*args)
        finally:
            self._within_a_node = before
        if self.program is not None and not before:
            self._gives(function, args)
            self.program.call(function, args, {}, result)
        return result


_active: list[_Recorder] = []


def node(function: F) -> F:
    """A function of tensors, lists of them and constants, as one call of a recorded step."""

    def call(*args: Any) -> Any:
        return _active[-1].node(function, args) if _active else function(*args)

    return call  # type: ignore[return-value]


def recorded(step: Callable[[], tuple[Any, ...]]) -> tuple[tuple[Any, ...], Callable[[], tuple[Any, ...]] | None]:
    """Run a step. Returns its results, and what runs it again, or None: the step asks for numbers of tensors."""
    recorder = _Recorder()
    _active.append(recorder)
    try:
        with recorder:
            results = step()
    finally:
        _active.remove(recorder)
    if recorder.program is None:
        return results, None
    return results, torch.no_grad()(recorder.program.finished(results))
