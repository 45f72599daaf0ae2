from __future__ import annotations

import numpy as np
import pytest

from fimaq_deploy.engines.options import CUDA_GRAPH, OPTIMISATIONS, THREADS, checked
from fimaq_deploy.errors import UserError

KNOWN = (OPTIMISATIONS, THREADS)
TAKERS = {"optimisations": ["a"], "threads": ["a", "b"], "cuda_graph": ["c"]}


def test_what_is_set_arrives_as_plain_python() -> None:
    found = checked("a", KNOWN, {"threads": np.int64(3), "optimisations": False}, TAKERS)
    assert found == {"threads": 3, "optimisations": False}
    assert type(found["threads"]) is int


def test_none_is_not_set_also_where_only_others_take_it() -> None:
    assert checked("a", KNOWN, {"threads": None, "cuda_graph": None}, TAKERS) == {}


@pytest.mark.parametrize("value", [0, -1, True, 1.0, "4", float("nan"), [1], 1025, 10**30])
def test_a_number_of_threads_is_a_whole_number(value: object) -> None:
    with pytest.raises(UserError, match=r"^option threads=.* of target a: expected a whole number from 1 to 1024$"):
        checked("a", KNOWN, {"threads": value}, TAKERS)


@pytest.mark.parametrize("value", [0, 1, "false", []])
def test_a_switch_is_true_or_false(value: object) -> None:
    with pytest.raises(UserError, match=r"expected true or false$"):
        checked("a", KNOWN, {"optimisations": value}, TAKERS)


@pytest.mark.parametrize(
    ("name", "value", "known", "message"),
    [
        ("thread", 1, KNOWN, "unknown option 'thread' of target a; did you mean 'threads'?"),
        ("thread", None, KNOWN, "unknown option 'thread' of target a; did you mean 'threads'?"),
        ("precision", 1, KNOWN, "unknown option 'precision' of target a; it takes optimisations, threads"),
        ("precision", 1, (), "unknown option 'precision' of target a; it takes none"),
        ("cuda_graph", True, KNOWN, "target a has no option 'cuda_graph', which is for c; it takes optimisations, th"),
        ("threads", 1, (CUDA_GRAPH,), "target a has no option 'threads', which is for a, b; it takes cuda_graph"),
    ],
)
def test_what_a_target_does_not_take_is_one_line(name: str, value: object, known: tuple, message: str) -> None:
    with pytest.raises(UserError) as caught:
        checked("a", known, {name: value}, TAKERS)
    assert str(caught.value).startswith(message)
