"""Operators that are bound to tensors compute there what they computed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from fimaq_deploy.calibration.operators import copied, operator

aten = torch.ops.aten
X, Y = torch.randn(4, 6), torch.randn(4, 6)
CASES: dict[str, tuple[Any, tuple[Any, ...], dict[str, Any]]] = {
    "function": (aten.add.Tensor, (X, Y), {"alpha": 2}),
    "number": (aten.mul.Tensor, (X, 0.25), {}),
    "variant": (aten.gelu.default, (X,), {}),
    "named": (aten._softmax.default, (X, 1, False), {}),
    "several": (aten.native_layer_norm.default, (X, [6], None, None, 1e-6), {}),
    "settings": (aten._to_copy.default, (X,), {"dtype": torch.float16}),
    "list": (aten.cat.default, ([X, Y], 1), {}),
    "left out": (
        aten.native_layer_norm_backward.default,
        (X, Y, [6], X.mean(1, keepdim=True), X.std(1, keepdim=True), None, None, [True, False, False]),
        {},
    ),
}


def as_list(result: Any) -> list[Tensor | None]:
    return list(result) if isinstance(result, list | tuple) else [result]


@pytest.mark.parametrize("case", CASES)
def test_a_bound_call_writes_the_same_numbers(case: str) -> None:
    function, args, kwargs = CASES[case]
    expected = as_list(function(*args, **kwargs))
    there = [each if each is None else torch.zeros_like(each) for each in expected]
    own = operator(function)
    assert not own.looks and own.repeats(args)
    own.bound(args, kwargs, there)()
    for one, other in zip(there, expected, strict=True):
        assert (one is None and other is None) or (one is not None and other is not None and torch.equal(one, other))


def test_one_that_changes_its_argument_does_so_again() -> None:
    x = torch.full((3,), 2.0)
    operator(aten.mul_.Tensor).bound((x, 3.0), {}, [x])()
    assert x.tolist() == [6, 6, 6]


@pytest.mark.parametrize("function", [aten.view.default, aten.t.default, aten._unsafe_view.default, aten.unbind.int])
def test_what_only_looks_is_known(function: Any) -> None:
    assert operator(function).looks


@pytest.mark.parametrize(
    ("function", "args"),
    [
        (aten.nonzero.default, (X,)),
        (aten._local_scalar_dense.default, (X[0, 0],)),
        (aten.index.Tensor, (X, [X[:, 0] > 0])),
    ],
)
def test_shapes_and_numbers_that_depend_on_numbers_are_known(function: Any, args: tuple[Any, ...]) -> None:
    assert not operator(function).repeats(args)
    assert operator(aten.index.Tensor).repeats((X, [torch.arange(2)]))


def test_results_are_copied_where_they_are_looked_for() -> None:
    there = [torch.zeros(2), None]
    make: Callable[[], Any] = lambda: (torch.ones(2), torch.ones(3))  # noqa: E731
    copied(make, there)()
    assert there[0] is not None and there[0].tolist() == [1, 1]
