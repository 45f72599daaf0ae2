"""What a pass is: one function that edits a graph in place, says whether it changed something, and is checked.

`Rewrite` is for what is done place by place: at every node of one operator for which `obstacle` knows no reason against
it. What it promises is checked each time: no such node is left. `whole` is for what is done to a graph at once, and
promises with `require`.

Behind every pass the graph is still one that can run, with the same inputs and outputs by name, type and number of
axes. A promise that is broken is our bug.

Not covered: nodes in the branches of If and Loop, which are left as they are.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

import onnx_ir as ir

from fimaq_deploy.graph.edit import broken_order, nodes_of, rank

_log = logging.getLogger(__name__)


class Pass(Protocol):
    @property
    def name(self) -> str: ...

    def __call__(self, model: ir.Model) -> bool:
        """Edit in place and say whether something changed.

        Raises:
            RuntimeError: a promise was broken; this is our bug.
        """
        ...

    def obstacles(self, model: ir.Model) -> dict[str, str]:
        """Why not, by the name of the node where the pass would be applied."""
        ...


@dataclass(frozen=True)
class Rewrite:
    """What is done at nodes of one operator.

    obstacle: why it is not done at a node, as half a sentence; None where it is.
    rewrite: does it, at a node without an obstacle.
    """

    name: str
    operator: str
    obstacle: Callable[[ir.Node], str | None]
    rewrite: Callable[[ir.Graph, ir.Node], None]

    def __call__(self, model: ir.Model) -> bool:
        changed = False
        with _checked(self.name, model):
            for node in nodes_of(model.graph, self.operator):
                if self._applies(node):
                    self.rewrite(model.graph, node)
                    changed = True
            left = [node.name for node in nodes_of(model.graph, self.operator) if self.obstacle(node) is None]
            require(not left, f"left as they were: {left}")
        return changed

    def obstacles(self, model: ir.Model) -> dict[str, str]:
        found = {str(node.name): self.obstacle(node) for node in nodes_of(model.graph, self.operator)}
        return {name: reason for name, reason in found.items() if reason is not None}

    def _applies(self, node: ir.Node) -> bool:
        if node.graph is None:  # an earlier place took it away
            return False
        reason = self.obstacle(node)
        if reason is not None:
            _log.debug("%s: not at %s: %s", self.name, node.name, reason)
        return reason is None


@dataclass(frozen=True)
class _Whole:
    name: str
    edit: Callable[[ir.Model], bool]

    def __call__(self, model: ir.Model) -> bool:
        with _checked(self.name, model):
            return self.edit(model)

    def obstacles(self, model: ir.Model) -> dict[str, str]:
        return {}


def whole(edit: Callable[[ir.Model], bool]) -> Pass:
    """A pass of a function that edits a model in place and says whether it changed something."""
    return _Whole(edit.__name__, edit)


class _Broken(Exception):
    pass


def require(holds: bool, promise: str) -> None:
    """Check what a pass promises; `promise` says what is wrong where it does not hold."""
    if not holds:
        raise _Broken(promise)


@contextmanager
def _checked(name: str, model: ir.Model) -> Iterator[None]:
    before = _face(model.graph)
    try:
        yield
        require(_face(model.graph) == before, f"inputs and outputs were {before}, are {_face(model.graph)}")
        problem = next(broken_order(model.graph), None)
        require(problem is None, str(problem))
    except _Broken as broken:
        raise RuntimeError(f"the pass {name} broke its promise: {broken}") from None


def _face(graph: ir.Graph) -> list[tuple[str | None, ir.DataType | None, int | None]]:
    """What is seen of a graph from outside."""
    return [(value.name, value.dtype, rank(value)) for value in (*graph.inputs, *graph.outputs)]
