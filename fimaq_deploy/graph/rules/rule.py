"""What a rule is, where it was broken, and how rules are registered."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeAlias

import onnx_ir as ir

from fimaq_deploy.graph.products import Operand, Pair, Product
from fimaq_deploy.graph.structure import Structure
from fimaq_deploy.target import Target

Severity = Literal["error", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")


@dataclass(frozen=True)
class Finding:
    """One broken rule in one place. `node` and `tensor` are names in the file, empty where it is about the whole."""

    rule: str
    severity: Severity
    node: str
    tensor: str
    problem: str
    remedy: str


class Findings(tuple[Finding, ...]):
    """What was found in a file for a target. file: as it was named."""

    file: str
    target: str

    def __new__(cls, found: Iterable[Finding], file: str, target: str) -> Findings:
        self = super().__new__(cls, found)
        self.file, self.target = file, target
        return self

    @property
    def errors(self) -> int:
        return sum(finding.severity == "error" for finding in self)

    @property
    def warnings(self) -> int:
        return sum(finding.severity == "warning" for finding in self)

    def document(self) -> dict[str, Any]:
        """For programs."""
        return {
            "schema": "fimaq-deploy/lint/1",
            "file": self.file,
            "target": self.target,
            "errors": self.errors,
            "warnings": self.warnings,
            "findings": [asdict(finding) for finding in self],
        }


@dataclass(frozen=True)
class Place:
    """Where a rule is broken, before its name and severity are added. severity: where it is not the rule's own."""

    at: ir.Node | None
    tensor: ir.Value | None
    problem: str
    remedy: str
    severity: Severity | None = None


Found: TypeAlias = Iterator[Place]
Check: TypeAlias = Callable[[Structure, Target], Found]


Holds: TypeAlias = Callable[[Target], bool]


@dataclass(frozen=True)
class Rule:
    """A rule by name.

    everywhere: whether it holds for every target.
    targets: which ones it holds for, by name or as a question, beside those that name it in their `lint_rules`.
    """

    name: str
    severity: Severity
    everywhere: bool
    check: Check
    targets: Collection[str] | Holds = ()

    def holds_for(self, target: Target) -> bool:
        return self.everywhere or self.name in target.lint_rules or self._chooses(target)

    def _chooses(self, target: Target) -> bool:
        if callable(self.targets):
            return self.targets(target)
        return not set(self.targets).isdisjoint(target.name.split("+"))  # as `combine` joins names

    def findings(self, structure: Structure, target: Target) -> Iterator[Finding]:
        for place in self.check(structure, target):
            node, tensor = (str(thing.name or "") if thing else "" for thing in (place.at, place.tensor))
            yield Finding(self.name, place.severity or self.severity, node, tensor, place.problem, place.remedy)


RULES: dict[str, Rule] = {}


def rule(
    name: str, severity: Severity = "error", *, everywhere: bool = False, targets: str | Collection[str] | Holds = ()
) -> Callable[[Check], Check]:
    """Register a function that yields the places where its rule is broken.

    everywhere, targets: where it holds, see `Rule`; with neither, for the targets that name it in their `lint_rules`.

    Raises:
        ValueError: another function has this name.
    """
    chosen = (targets,) if isinstance(targets, str) else targets

    def register(check: Check) -> Check:
        known = RULES.get(name)
        if known is not None and _origin(known.check) != _origin(check):
            raise ValueError(f"there is another rule {name} already")
        RULES[name] = Rule(name, severity, everywhere, check, chosen)
        return check

    return register


def _origin(check: Check) -> tuple[str, str]:
    """The same for a function whose module, or cell of a notebook, is run again."""
    return check.__module__, check.__qualname__


def at_pair(pair: Pair, problem: str, remedy: str) -> Place:
    return Place(pair.nodes[0], pair.tensor, problem, remedy)


def at_weight(product: Product, weight: Operand, problem: str, remedy: str) -> Place:
    return Place(product.node, weight.stored, problem, remedy)


def listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(set(names)))


def block_size(quantizer: ir.Node) -> int:
    """How many values along the axis share a scale; 0 where no blocks are asked for."""
    return quantizer.attributes.get_int("block_size", 0)
