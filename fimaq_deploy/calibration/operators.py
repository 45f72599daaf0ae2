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
_INTO = {
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
_IN_PLACE = {
    _aten.copy_.default: Tensor.copy_,
    _aten.round_.default: Tensor.round_,
    _aten.lt_.Scalar: Tensor.lt_,
    _aten.add_.Tensor: Tensor.add_,
    _aten.mul_.Tensor: Tensor.mul_,
    _aten.exp_.default: Tensor.exp_,
}
# What a tensor that is written into has already.
_OF_A_TENSOR = {"dtype", "layout", "device", "pin_memory"}


def writes(function: Any) -> bool:
    """Whether an operator changes one of its arguments."""
    return bool(function._schema.is_mutable)


def shapes_are_fixed(function: Any, args: Sequence[Any]) -> bool:
    """Whether the numbers of tensors do not decide on results' shapes, or on numbers that Python goes on with."""
    if function is torch.ops.aten.index.Tensor:
        return not any(isinstance(each, Tensor) and each.dtype in (torch.bool, torch.uint8) for each in args[1])
    tags = function.tags
    return not (torch.Tag.dynamic_output_shape in tags or torch.Tag.data_dependent_output in tags)


def bound(function: Any, args: tuple[Any, ...], kwargs: dict[str, Any], results: Sequence[Any]) -> Callable[[], Any]:
    """What computes the results of an operator anew, where they lie. None among them stands for what it left out."""
    if writes(function):
        return partial(_IN_PLACE.get(function, function._op), *args, **kwargs)
    variant, names = _into(function)
    if variant is None or len(names) != len(results) or any(each is None for each in results):
        return copied(partial(function._op, *args, **kwargs), results)
    settings = {name: value for name, value in kwargs.items() if name in _known(variant)}
    if function in _INTO:
        return partial(_INTO[function], *args, **settings, out=results[0])
    return partial(variant._op, *args, **settings, **dict(zip(names, results, strict=True)))


def copied(call: Callable[[], Any], there: Sequence[Any]) -> Callable[[], Any]:
    """A call whose results go where they are looked for."""

    def copying() -> None:
        found = call()
        for old, new in zip(there, found if isinstance(found, list | tuple) else (found,), strict=True):
            if old is not None:
                old.copy_(new)

    return copying


@cache
def _into(function: Any) -> tuple[Any, tuple[str, ...]]:
    """The variant of an operator that writes into tensors, and their names; None if there is none."""
    own = {(each.name, str(each.type)) for each in function._schema.arguments}
    for overload in function.overloadpacket.overloads():
        variant = getattr(function.overloadpacket, overload)
        written = [each for each in variant._schema.arguments if each.is_out]
        taken = {(each.name, str(each.type)) for each in variant._schema.arguments if not each.is_out}
        settled = {name for name, _ in own - taken} <= _OF_A_TENSOR
        if written and taken <= own and settled and all(str(each.type) == "Tensor" for each in written):
            return variant, tuple(each.name for each in written)
    return None, ()


@cache
def _known(variant: Any) -> frozenset[str]:
    return frozenset(each.name for each in variant._schema.arguments)
