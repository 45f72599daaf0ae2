"""A step on the host as a list of operators, which is run again without modules, autograd and its bookkeeping.

What a device does with recorded kernels, a host can do with calls of operators: for a small block half of a step's time
is Python's modules and autograd's graph. The same operators run in the same order on the same numbers.

Everything else that Python does in a step is done once, when it is recorded. Where it matters, because it reads what
changes from step to step as a number or an attribute, it is one `node`: a function that is called again.

As in a device's recording every tensor stays where it is, so that a call is bound to its tensors once and for all
(`operators.bound`), and what only looks at a tensor in another shape is not called again: that is half of all calls.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor
from torch.utils._mode_utils import no_dispatch
from torch.utils._python_dispatch import TorchDispatchMode

from fimaq_deploy.calibration.operators import copied, operator

F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T")

# Numbers that go into a step for which this is worth the memory: as long as it is recorded, nothing that it computes is
# freed. Larger ones are bound by their arithmetic.
WORTH_RECORDING = 2**16


class _Call(NamedTuple):
    """into: None for an operator; of a node, whether it writes its results where it is told."""

    function: Any
    args: tuple[Any, ...]
    settings: dict[str, Any]
    result: Any
    into: bool | None = None


class _Notes:
    """Notes what is called, and keeps it all: memory is one call's, an identity one tensor's."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[_Call] = []
        self._paused = 0

    def __torch_dispatch__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        result = function._op(*args, **kwargs)
        self.calls.append(_Call(function, args, kwargs, result))
        return result

    def node(self, function: Callable[..., Any], args: tuple[Any, ...], into: bool) -> Any:
        if self._paused:
            return function(*args)
        result = self.pause(function, args)
        if not into:
            result = self.pause(_owned, (result,))
        self.calls.append(_Call(function, args, {}, result, into))
        return result

    def pause(self, function: Callable[..., Any], args: tuple[Any, ...]) -> Any:
        """Call a function of which nothing is noted; operators that do not come here take half of the time."""
        self._paused += 1
        try:
            with no_dispatch():
                return function(*args)
        finally:
            self._paused -= 1


class _Recorder(_Notes, TorchDispatchMode):
    """Inherits its dispatch: torch guards a mode's own against its compiler, which takes as long as an operator."""


class Tape:
    """What was called, as calls without arguments; `calls` is None where it cannot be called again."""

    def __init__(self, calls: list[_Call]) -> None:
        self.calls: list[Callable[[], Any]] | None = []
        self._before: list[int] = []  # of each call that was recorded, how many of those without arguments
        self._given: dict[int, Tensor] = {}  # gradients by what autograd made of them for their parameters
        empty: _Call | None = None
        for number, call in enumerate(calls):
            self._before.append(len(self.calls))
            following = calls[number + 1] if number + 1 < len(calls) else None
            if call.function is torch.ops.aten.new_empty_strided.default and self._gives(call, following):
                empty = call
            elif empty is not None:
                empty = None
            elif not self._take(call):
                self.calls = None
                break

    def part(self, first: int, last: int | None = None) -> list[Callable[[], Any]]:
        """From one place of the recording (`here`) to another, or to its end."""
        assert self.calls is not None
        before = [*self._before, len(self.calls)]
        return self.calls[before[first] : before[-1 if last is None else last]]

    def _gives(self, empty: _Call, copy: _Call | None) -> bool:
        """Whether a call copies a gradient for its parameter, which autograd hands on where nobody looks at it."""
        if copy is None or copy.function is not torch.ops.aten.copy_.default or copy.args[0] is not empty.result:
            return False
        there, gradient = copy.args[:2]
        alike = there.dtype == gradient.dtype and there.stride() == gradient.stride()
        if not alike or any(each is gradient for each in self._given.values()):
            return False
        self._given[id(there)] = gradient
        return True

    def _take(self, call: _Call) -> bool:
        """Returns whether it can be called again."""
        assert self.calls is not None
        if call.into is not None:
            again = partial(call.function, *self.meant(call.args))
            there = self._alone(call.result)
            self.calls.append(partial(again, there=there) if call.into else copied(again, there))
            return True
        own = operator(call.function)
        if own.looks:
            return not self._given or self._looks(call)
        if not own.repeats(call.args):
            return False
        settings = call.settings and {name: self.meant(value) for name, value in call.settings.items()}
        self.calls.append(own.bound(self.meant(call.args), settings, self._alone(call.result)))
        return True

    def _looks(self, call: _Call) -> bool:
        given = self._given.get(id(call.args[0]))
        if given is not None and call.function is torch.ops.aten.detach.default:
            self._given[id(call.result)] = given
        return given is None or id(call.result) in self._given

    def meant(self, value: Any) -> Any:
        """A value with the gradients themselves in the place of their copies, and nothing of autograd."""
        if isinstance(value, Tensor):
            value = self._given.get(id(value), value) if self._given else value
            return value.detach() if value.requires_grad else value
        if isinstance(value, list | tuple) and any(isinstance(each, Tensor | list | tuple) for each in value):
            return type(value)(map(self.meant, value))
        return value

    def _alone(self, result: Any) -> list[Any]:
        return list(map(self.meant, result)) if isinstance(result, list | tuple) else [self.meant(result)]


_active: list[_Recorder] = []


def node(function: F) -> F:
    """A function of tensors, lists of them and constants, as one call of a recorded step.

    It must return tensors of the same shapes every time, of memory of their own. Where it has a parameter `there`, it
    is told into which tensors to write its results, and does so; otherwise they are copied there.
    """
    into = "there" in inspect.signature(function).parameters

    def call(*args: Any) -> Any:
        return _active[-1].node(function, args, into) if _active else function(*args)

    return call  # type: ignore[return-value]


def once(function: F) -> F:
    """A function that is called when a step is recorded, and not again: it makes what all steps share."""

    def call(*args: Any) -> Any:
        return _active[-1].pause(function, args) if _active else function(*args)

    return call  # type: ignore[return-value]


def here() -> int:
    """The place that a recording has come to; asked from inside of the step."""
    return len(_active[-1].calls)


def taped(step: Callable[[], T]) -> tuple[T, Tape]:
    """Run a step. Returns its results, and its calls, which cannot be called again if it asks for tensors' numbers."""
    recorder = _Recorder()
    _active.append(recorder)
    try:
        with recorder:
            results = step()
    finally:
        _active.remove(recorder)
    return results, Tape(recorder.calls)


def run(calls: list[Callable[[], Any]]) -> None:
    """Call what a tape holds, or a part of it."""
    with torch.inference_mode():  # which lets operators skip what they do for autograd
        for call in calls:
            call()


def recorded(step: Callable[[], tuple[Any, ...]]) -> tuple[tuple[Any, ...], Callable[[], tuple[Any, ...]] | None]:
    """Run a step. Returns its results, and what runs it again, or None: it asks for numbers or shapes of tensors."""
    results, tape = taped(step)
    calls = tape.calls
    if calls is None:
        return results, None
    theirs = [tape.meant(each) for each in results]

    def again() -> tuple[Any, ...]:
        run(calls)
        with torch.no_grad():
            return tuple(each.clone() for each in theirs)

    return tuple(each.clone() for each in theirs), again


def _owned(result: Any) -> Any:
    if isinstance(result, list | tuple):
        return type(result)(map(_owned, result))
    return result.clone() if isinstance(result, Tensor) else result
