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
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from fimaq_deploy.calibration.operators import bound, copied, shapes_are_fixed, writes

F = TypeVar("F", bound=Callable[..., Any])

# Numbers that go into a step for which this is worth the memory: as long as it is recorded, nothing that it computes is
# freed. Larger ones are bound by their arithmetic.
WORTH_RECORDING = 2**16


class _Recorder(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.calls: list[Callable[[], Any]] | None = []
        self.paused = False
        self._kept: list[Any] = []  # so that an identity stays one tensor's, and memory one call's
        self._empty: tuple[Any, ...] | None = None  # the call before, if it made a tensor without numbers
        self._given: dict[int, Tensor] = {}  # gradients by what autograd made of them for their parameters
        self._copies: set[int] = set()  # the memory of those

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # nobody compiles here, and asking takes as long as an operator

    def __torch_dispatch__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        result = function(*args, **kwargs)
        if self.paused or self.calls is None:
            return result
        self._kept.append(result)
        if function is torch.ops.aten.new_empty_strided.default:
            self._empty = function, args, kwargs, result
        elif not self._gives(function, args):
            self._record(function, args, kwargs, result)
        return result

    def _record(self, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> None:
        assert self.calls is not None
        memory = {_memory(each) for each in _tensors([result])}
        looks = not writes(function) and not memory.isdisjoint(_memory(each) for each in _tensors(args))
        if not shapes_are_fixed(function, args) or (looks and not memory.isdisjoint(self._copies)):
            self.calls = None
        elif memory and not looks:
            taken = {name: self._meant(value) for name, value in kwargs.items()}
            self.calls.append(bound(function, self._meant(args), taken, _alone(result)))

    def _gives(self, function: Any, args: tuple[Any, ...]) -> bool:
        """Whether a call copies a gradient for its parameter, which autograd hands on where nobody looks at it."""
        before, self._empty = self._empty, None
        if before is None:
            return False
        if function is torch.ops.aten.copy_.default and args[0] is before[-1] and self._may_give(*args[:2]):
            self._given[id(args[0])] = args[1]
            self._copies.add(_memory(args[0]))
            return True
        self._record(*before)
        return False

    def _may_give(self, there: Tensor, gradient: Tensor) -> bool:
        alike = there.dtype == gradient.dtype and there.stride() == gradient.stride()
        return alike and not any(each is gradient for each in self._given.values())

    def _meant(self, value: Any) -> Any:
        """A value with the gradients themselves in the place of their copies, and nothing of autograd."""
        if isinstance(value, Tensor):
            return self._given.get(id(value), value).detach()
        return type(value)(map(self._meant, value)) if isinstance(value, list | tuple) else value

    def node(self, function: Callable[..., Any], args: tuple[Any, ...], writes_there: bool) -> Any:
        before, self.paused = self.paused, True
        try:
            result = function(*args)
            if not writes_there:
                result = _owned(result)
        finally:
            self.paused = before
        if self.calls is not None and not before:
            self._kept.append(result)
            self._gives(function, args)
            call = partial(function, *self._meant(args))
            there = _alone(result)
            self.calls.append(partial(call, there=there) if writes_there else copied(call, there))
        return result


_active: list[_Recorder] = []


def node(function: F) -> F:
    """A function of tensors, lists of them and constants, as one call of a recorded step.

    It must return tensors of the same shapes every time, of memory of their own. Where it has a parameter `there`, it
    is told into which tensors to write its results, and does so; otherwise they are copied there.
    """
    writes_there = "there" in inspect.signature(function).parameters

    def call(*args: Any) -> Any:
        return _active[-1].node(function, args, writes_there) if _active else function(*args)

    return call  # type: ignore[return-value]


def once(function: F) -> F:
    """A function that is called when a step is recorded, and not again: it makes what all steps share."""

    def call(*args: Any) -> Any:
        if not _active:
            return function(*args)
        before, _active[-1].paused = _active[-1].paused, True
        try:
            return function(*args)
        finally:
            _active[-1].paused = before

    return call  # type: ignore[return-value]


def recorded(step: Callable[[], tuple[Any, ...]]) -> tuple[tuple[Any, ...], Callable[[], tuple[Any, ...]] | None]:
    """Run a step. Returns its results, and what runs it again, or None: it asks for numbers or shapes of tensors."""
    recorder = _Recorder()
    _active.append(recorder)
    try:
        with recorder:
            results = step()
    finally:
        _active.remove(recorder)
    calls = recorder.calls
    if calls is None:
        return results, None
    theirs = [recorder._meant(each).detach() for each in results]

    def again() -> tuple[Any, ...]:
        with torch.inference_mode():  # which lets operators skip what they do for autograd
            for call in calls:
                call()
        with torch.no_grad():
            return tuple(each.clone() for each in theirs)

    return tuple(each.detach().clone() for each in theirs), again


def _tensors(values: Any) -> Iterator[Tensor]:
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from _tensors(value)


def _memory(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata


def _alone(result: Any) -> list[Any]:
    """The tensors of a result, without what autograd knows of them."""
    return [
        each if each is None else each.detach() for each in (result if isinstance(result, list | tuple) else [result])
    ]


def _owned(result: Any) -> Any:
    if isinstance(result, list | tuple):
        return type(result)(map(_owned, result))
    return result.clone() if isinstance(result, Tensor) else result
