"""What keeps a QDQ file from running on a target as it was meant to, found without compiling it.

`lint` reads any QDQ ONNX file and applies the rules that hold for the target: it names them (`fimaq_deploy.target`),
they name it, or they hold for every runtime. Every module of this folder is imported, so that its rules are known. An
error is a file that the runtime refuses, computes otherwise than it says, or runs in floating point or with unfused
attention although it is quantized. A warning costs time or accuracy and gains nothing. A note says what could not be
judged.

Where a rule states a fact of TensorRT it was measured on TensorRT-RTX 1.7.1, compiled for 8.9; where of ONNX Runtime,
on version 1.31 on x86.

Not covered: see `fimaq_deploy.graph.structure`; and that what is written is fast, which `fimaq-deploy audit` judges
from the compiled plan.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules

from fimaq_deploy.graph.inspection import load_proto
from fimaq_deploy.graph.rules.rule import RULES, SEVERITIES, Finding, Findings, Rule
from fimaq_deploy.graph.rules.unloadable import NAME, unloadable
from fimaq_deploy.graph.structure import read_structure
from fimaq_deploy.target import Target, find_target, load_guests

__all__ = ["RULES", "Finding", "Findings", "Rule", "lint"]

for _module in iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")


def lint(path: str | Path, target: str | Target) -> Findings:
    """Everything in an ONNX file that breaks a rule of a target: errors first, then in execution order.

    Of a file that no runtime loads (`unloadable`) only that is told: nothing else can be judged.

    Raises:
        UserError: unknown target, no such file, not an ONNX model, or another package's targets cannot be loaded.
    """
    rules = find_target(target) if isinstance(target, str) else target
    load_guests()  # their modules may bring rules for our targets
    model = load_proto(path)
    found = unloadable(model, Path(path), rules) if model.graph.node else []  # one without nodes is told below
    if any(finding.severity == "error" and finding.rule == NAME for finding in found):
        return Findings(sorted(found, key=_severity), str(path), rules.name)
    structure = read_structure(path)
    applied = [rule for rule in RULES.values() if rule.holds_for(rules)]
    judged = [finding for rule in applied for finding in rule.findings(structure, rules)]
    found = [*(each for each in found if each.rule not in {finding.rule for finding in judged}), *judged]
    order = {node.name: number for number, node in enumerate(structure.graph)}
    found.sort(key=lambda each: (_severity(each), order.get(each.node, -1)))
    return Findings(found, str(path), rules.name)


def _severity(finding: Finding) -> int:
    return SEVERITIES.index(finding.severity)
