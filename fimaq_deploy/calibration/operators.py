"""Torch's operators as calls that are bound to their tensors: they write over what they wrote before.

An operator that makes a tensor has a variant that writes into one (`out`), which computes the same numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor

_aten = torch.ops.aten

# Functions of Python that call an operator as it stands, which takes half a microsecond less than its own call does.
_INTO: dict[Any, Callable[..., Any]] = {
    _aten.add.Tensor: torch.add,
    _aten.sub.Tensor: torch.sub,
    _aten.mul.Tensor: torch.mul,
    _aten.div.Tensor: torch.div,
    _aten.mm.default: torch.mm,
    _aten.bmm.default: torch.bmm,
    _aten.addmm.default: torch.addmm,
    _aten.sum.dim_IntList: torch.sum,
    _aten.clamp.default: torch.clamp,
    _aten.cat.default: torch.cat,
    _aten.stack.default: torch.stack,
    _aten.pow.Tensor_Scalar: torch.pow,
}
_IN_PLACE: dict[Any, Callable[..., Any]] = {
    _aten.copy_.default: Tensor.copy_,
    _aten.round_.default: Tensor.round_,
    _aten.lt_.Scalar: Tensor.lt_,
    _aten.add_.Tensor: Tensor.add_,
    _aten.mul_.Tensor: Tensor.mul_,
    _aten.exp_.default: Tensor.exp_,
}
# What a tensor that is written into has already.
_OF_A_TENSOR = {"dtype", "layout", "device", "pin_memory"}


class Operator:
    """What an operator does to its arguments, and how it is called again.

    looks: its results lie where its arguments do, and it changes nothing.
    """

    def __init__(self, function: Any) -> None:
        schema = function._schema
        self._function, self._call = function, function._op
        self._writes = bool(schema.is_mutable)
        shares = any(each.alias_info is not None for each in schema.returns)
        self.looks = function is _aten._unsafe_view.default or (shares and not self._writes)
        self._variant, self._names, self._known = _into(function)
        depends = {torch.Tag.dynamic_output_shape, torch.Tag.data_dependent_output}
        self._depends = not depends.isdisjoint(function.tags)
        self._in_place: Callable[..., Any] = _IN_PLACE.get(function, self._call)
        self._plain = _INTO.get(function)

    def repeats(self, args: Sequence[Any]) -> bool:
        """Whether the numbers of tensors decide neither on shapes nor on numbers that Python goes on with."""
        if self._function is _aten.index.Tensor:
            return not any(isinstance(each, Tensor) and each.dtype in (torch.bool, torch.uint8) for each in args[1])
        return not self._depends

    def bound(self, args: tuple[Any, ...], kwargs: dict[str, Any], results: Sequence[Any]) -> Callable[[], Any]:
        """What computes its results anew, where they lie. None among them stands for what it left out."""
        if self._writes:
            return partial(self._in_place, *args, **kwargs)
        if self._variant is None or len(self._names) != len(results) or any(each is None for each in results):
            return copied(partial(self._call, *args, **kwargs), results)
        settings = {name: value for name, value in kwargs.items() if name in self._known}
        if self._plain is not None:
            return partial(self._plain, *args, **settings, out=results[0])
        return partial(self._variant._op, *args, **settings, **dict(zip(self._names, results, strict=True)))


operator = cache(Operator)


def copied(call: Callable[[], Any], there: Sequence[Any]) -> Callable[[], Any]:
    """A call whose results go where they are looked for."""

    def copying() -> None:
        found = call()
        for old, new in zip(there, found if isinstance(found, list | tuple) else (found,), strict=True):
            if old is not None:
                old.copy_(new)

    return copying


def _into(function: Any) -> tuple[Any, tuple[str, ...], frozenset[str]]:
    """The variant of an operator that writes into tensors, their names, and the names of all its arguments."""
    own = {(each.name, str(each.type)) for each in function._schema.arguments}
    for overload in function.overloadpacket.overloads():
        variant = getattr(function.overloadpacket, overload)
        written = [each for each in variant._schema.arguments if each.is_out]
        taken = {(each.name, str(each.type)) for each in variant._schema.arguments if not each.is_out}
        settled = {name for name, _ in own - taken} <= _OF_A_TENSOR
        if written and taken <= own and settled and all(str(each.type) == "Tensor" for each in written):
            return variant, tuple(each.name for each in written), frozenset(name for name, _ in taken)
    return None, (), frozenset()
