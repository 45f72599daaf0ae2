"""What a runtime's loader may be told, and that only what it understands reaches it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from numbers import Integral
from typing import Any

from fimaq_deploy.errors import UserError


@dataclass(frozen=True)
class Option:
    """One option of a loader. least, most: of a whole number; None: it is true or false."""

    name: str
    meaning: str
    least: int | None = None
    most: int = 2**31 - 1

    @property
    def expected(self) -> str:
        return "true or false" if self.least is None else f"a whole number from {self.least} to {self.most}"

    def value(self, given: object) -> bool | int | None:
        """What was given, as a plain Python value; None where it is of another type or too small."""
        if isinstance(given, bool):
            return given if self.least is None else None
        if self.least is None or not isinstance(given, Integral):
            return None
        return number if self.least <= (number := int(given)) <= self.most else None


OPTIMISATIONS = Option("optimisations", "False computes the graph as written")
THREADS = Option("threads", "of a CPU, for one run; default: the runtime's choice", least=1, most=1024)
CUDA_GRAPH = Option("cuda_graph", "record the kernels of a batch size once and replay them")


def checked(
    target: str, known: Sequence[Option], given: Mapping[str, object], takers: Mapping[str, Sequence[str]]
) -> dict[str, Any]:
    """The options that were set, checked. One of None is not set.

    known: what the target takes. takers: the targets that take an option, by its name.

    Raises:
        UserError: an option that nothing takes, that only others take, or of another type.
    """
    found = {}
    for name, value in given.items():
        option = next((one for one in known if one.name == name), None)
        if option is None and (value is not None or name not in takers):
            raise UserError(_refusal(target, name, [one.name for one in known], takers))
        if option is not None and value is not None:
            found[name] = option.value(value)
            if found[name] is None:
                raise UserError(f"option {name}={value!r} of target {target}: expected {option.expected}")
    return found


def _refusal(target: str, name: str, known: Sequence[str], takers: Mapping[str, Sequence[str]]) -> str:
    takes = f"it takes {', '.join(known)}" if known else "it takes none"
    if name in takers:
        return f"target {target} has no option '{name}', which is for {', '.join(takers[name])}; {takes}"
    close = get_close_matches(name, takers, 1)
    hint = f"; did you mean '{close[0]}'?" if close else f"; {takes}"
    return f"unknown option '{name}' of target {target}{hint}"
