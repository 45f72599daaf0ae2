"""The rule `unloadable`: files that are ONNX, but that no runtime loads. It holds for every target.

What `onnx.checker` and strict shape inference refuse is told in one line. They stop at the first fault, and miss
operators of unknown domains, opsets that do not exist and data that is too short; those are found here. What ONNX
Runtime was seen to load although the checker refuses it is let through: nodes out of order (a warning), domains
without an opset.

It is no function of a `Structure`, which only a sound file has; where a file breaks it nothing else can be judged.

Not covered: what only one runtime refuses, and types and shapes behind operators that onnx does not know.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache, partial
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import onnx
from onnx import defs

from fimaq_deploy.graph.protos import attribute_graphs, defined_names, every_graph, label, names_read
from fimaq_deploy.graph.rules.external_data import faulty_data, without_external_data
from fimaq_deploy.graph.rules.rule import Finding, Severity
from fimaq_deploy.graph.values import QUANTIZERS
from fimaq_deploy.target import Target

NAME = "unloadable"
_STANDARD = ("", "ai.onnx")
_MICROSOFT = "com.microsoft"
# Beside those that onnx itself knows. Of ONNX Runtime and its extensions, PyTorch, TensorRT's plugins and OpenVINO.
_EXECUTED = frozenset(
    {
        _MICROSOFT,
        "com.microsoft.dml",
        "com.microsoft.experimental",
        "com.microsoft.extensions",
        "com.microsoft.nchwc",
        "com.ms.internal.nhwc",
        "ai.onnx.contrib",
        "org.pytorch.aten",
        "trt",
        "trt.plugins",
        "org.openvinotoolkit",
    }
)
# The rule that says the same with a remedy, where only what quantizes is too new for the file's opset.
OPSET = "opset"
_WITH_EVERY_TYPE = 21
_WORDS = 160


def unloadable(model: onnx.ModelProto, path: Path, target: Target) -> list[Finding]:
    """Why no runtime loads a model that was read from `path`, with external data left there. `model` is changed.

    A finding of the rule `opset` is one too, but the file can be judged further.
    """
    found = [
        *_opsets(model),
        *_operators(model),
        *(list(_names(model.graph)) or [*_dangling(model.graph, frozenset()), *_cycles(model)]),
        *_twice_named_nodes(model.graph, target),
        *(_fault(tensor=name, problem=problem, remedy=remedy) for name, problem, remedy in faulty_data(model, path)),
    ]
    return found if any(finding.severity == "error" for finding in found) else [*found, *_refused(model)]


def _fault(problem: str, remedy: str, node: str = "", tensor: str = "", severity: Severity = "error") -> Finding:
    return Finding(NAME, severity, node, tensor, _cut(problem), remedy)


def _opsets(model: onnx.ModelProto) -> Iterator[Finding]:
    if not any(opset.domain in _STANDARD for opset in model.opset_import) and _uses_standard(model):
        yield _fault("the file does not say its opset", "export it again, at opset 21")
    for opset in model.opset_import:
        newest = _newest(opset.domain)
        if newest is not None and not 1 <= opset.version <= newest:
            yield _fault(
                f"opset {opset.version}{f' of {opset.domain}' if opset.domain else ''}: onnx {onnx.__version__} knows "
                f"1 to {newest}",
                "export at one of these (21 has everything that QDQ needs), or update onnx",
            )


def _uses_standard(model: onnx.ModelProto) -> bool:
    return any(node.domain in _STANDARD for node in model.graph.node)


def _newest(domain: str) -> int | None:
    """The newest opset of a domain of onnx; None for the domains of others."""
    if domain in _STANDARD:
        return defs.onnx_opset_version()
    return _newest_by_domain().get(domain)


@cache
def _newest_by_domain() -> dict[str, int]:
    from onnx.onnx_cpp2py_export.defs import schema_version_map

    return {domain: newest for domain, (_, newest) in schema_version_map().items()}


def _operators(model: onnx.ModelProto) -> Iterator[Finding]:
    own = {(function.domain, function.name) for function in model.functions}
    for nodes, opsets in every_graph(model):
        versions = {opset.domain.removeprefix("ai.onnx") or "": opset.version for opset in opsets}
        for node in nodes:
            problem = None if (node.domain, node.op_type) in own else _unknown(node, versions)
            if problem:
                yield _fault(problem, "write it with operators of ONNX or of the runtime", label(node))


def _unknown(node: onnx.NodeProto, versions: dict[str, int]) -> str | None:
    """Why an operator cannot be executed by any runtime that we know; None where it can."""
    if node.domain in _STANDARD:
        return None if _is_plugin(node) else _not_standard(node, versions.get("", 0))
    if node.domain == _MICROSOFT and node.op_type not in _of_onnxruntime():
        return f"ONNX Runtime has no operator {node.op_type}"
    if _is_plugin(node) or node.domain.lower() in _EXECUTED or node.domain in _newest_by_domain():
        return None
    return f"operator {node.op_type} of the domain {node.domain}: neither ONNX nor a runtime has it"


def _is_plugin(node: onnx.NodeProto) -> bool:
    """Whether it is named as TensorRT names its own plugins, which it finds in every domain."""
    return node.op_type.endswith("_TRT") or node.op_type.startswith("TRT_")


def _not_standard(node: onnx.NodeProto, opset: int) -> str | None:
    if not defs.has(node.op_type):
        return f"ONNX has no operator {node.op_type}"
    if not 1 <= opset <= defs.onnx_opset_version():
        return None  # told of the opset already
    try:
        schema = defs.get_schema(node.op_type, opset, "")
    except defs.SchemaError:
        return f"opset {opset} has no operator {node.op_type}: it came later"
    return f"operator {node.op_type} is gone since opset {schema.since_version}" if schema.deprecated else None


@cache
def _of_onnxruntime() -> frozenset[str]:
    from onnxruntime.capi.onnxruntime_pybind11_state import get_all_operator_schema

    return frozenset(schema.name for schema in get_all_operator_schema() if schema.domain == _MICROSOFT)


def _names(graph: onnx.GraphProto) -> Iterator[Finding]:
    """What is named twice in a graph or one inside it."""
    inputs, stored = {value.name for value in graph.input}, set[str]()
    for tensor in graph.initializer:
        if tensor.name in stored:
            yield _fault(f"two stored tensors are named {tensor.name}", "give each its own name", tensor=tensor.name)
        stored.add(tensor.name)
    taken = inputs | stored
    for node in graph.node:
        for name in filter(None, node.output):
            if name in taken:
                problem = f"{name} is computed here and is already the name of another tensor"
                yield _fault(problem, "give every output its own name", label(node), name)
            taken.add(name)
        for inner in attribute_graphs(node):
            yield from _names(inner)
    outputs = [value.name for value in graph.output]
    for name in sorted({name for name in outputs if outputs.count(name) > 1}):
        yield _fault(f"the output {name} is listed twice", "list it once", tensor=name, severity="warning")


def _dangling(graph: onnx.GraphProto, outside: frozenset[str]) -> Iterator[Finding]:
    known = outside | defined_names(graph)
    remedy = "export it again: a node, an input or stored numbers are missing"
    for node in graph.node:
        for name in node.input:
            if name and name not in known:
                yield _fault(f"it reads {name}, which nothing computes or stores", remedy, label(node), name)
        for inner in attribute_graphs(node):
            yield from _dangling(inner, known)
    for value in graph.output:
        if value.name not in known:
            yield _fault(f"the output {value.name} is computed by nothing", remedy, tensor=value.name)


def _cycles(model: onnx.ModelProto) -> Iterator[Finding]:
    """Cycles; and nodes out of order, which are then put in order."""
    for nodes, _ in every_graph(model):
        makers = {name: at for at, node in enumerate(nodes) for name in node.output if name}
        before = {at: {makers[name] for name in names_read(node) if name in makers} for at, node in enumerate(nodes)}
        try:
            order = list(TopologicalSorter(before).static_order())
        except CycleError as error:
            ring = [label(nodes[at]) for at in reversed(error.args[1])]
            told = " -> ".join([*ring[:5], *(["..."] if len(ring) > 5 else [])])
            yield _fault(f"a cycle: {told}", "no node can wait for its own result: export it again", ring[0])
            continue
        late = next((at for at, reads in before.items() if any(source > at for source in reads)), None)
        if late is not None:
            yield _fault(
                "it stands before a node whose result it reads: ONNX Runtime sorts nodes, the standard wants them so",
                "sort the nodes (onnx_ir: graph.sort())",
                label(nodes[late]),
                severity="warning",
            )
            ordered = [onnx.NodeProto.FromString(nodes[at].SerializeToString()) for at in order]
            del nodes[:]
            nodes.extend(ordered)


def _twice_named_nodes(graph: onnx.GraphProto, target: Target) -> Iterator[Finding]:
    """Measured on ONNX Runtime 1.31.1, which refuses them."""
    seen = set[str]()
    severity: Severity = "error" if "onnxruntime" in target.name else "warning"
    for node in graph.node:
        if node.name and node.name in seen:
            problem = f"two nodes are named {node.name}: ONNX Runtime refuses the file"
            yield _fault(problem, "give every node its own name, or none", node.name, severity=severity)
        seen.add(node.name)


def _refused(model: onnx.ModelProto) -> list[Finding]:
    """What the checker or else strict shape inference says, of a model in which everything above is sound."""
    _as_the_checker_reads_it(model)
    found = _checked(model)
    opset = next((opset.version for opset in model.opset_import if not opset.domain), 0)
    if found and opset < _WITH_EVERY_TYPE and _is_sound_without_quantizers(model):
        return [replace(found[0], rule=OPSET)]
    return found


def _is_sound_without_quantizers(model: onnx.ModelProto) -> bool:
    """Whether only the types and attributes of QuantizeLinear and DequantizeLinear are refused. `model` is changed."""
    quantizers = [node for nodes, _ in every_graph(model) for node in nodes if node.op_type in QUANTIZERS]
    for node in quantizers:
        node.domain = "trt"  # of a domain that the checker knows nothing of
    model.opset_import.append(onnx.helper.make_opsetid("trt", 1))
    whole = all(len(node.input) in (2, 3) and all(node.input[:2]) and len(node.output) == 1 for node in quantizers)
    return whole and not _checked(model)


def _checked(model: onnx.ModelProto) -> list[Finding]:
    values = [value for value in (*model.graph.input, *model.graph.output) if value.type.HasField("tensor_type")]
    unsaid = [value.type.tensor_type for value in values if not value.type.tensor_type.HasField("shape")]
    unsaid += [value.type.tensor_type for value in model.graph.output if value in values]
    for each in unsaid:  # no runtime needs them, the checker does
        each.shape.SetInParent()
    found = _raised(onnx.checker.check_model, model)
    for each in unsaid:
        each.ClearField("shape")
    return found or _raised(partial(onnx.shape_inference.infer_shapes, check_type=True, strict_mode=True), model)


def _raised(check: Callable[[onnx.ModelProto], object], model: onnx.ModelProto) -> list[Finding]:
    try:
        check(model)
    except Exception as error:  # their C++ raises whatever a broken file leads it to
        text = str(error)
        node = re.search(r"(?:node name|Name|name): ([^\s),]+)", text)
        return [_fault(_one_line(text), "export it again, or mend this node", node[1] if node else "")]
    return []


def _one_line(text: str) -> str:
    first = " ".join(text.partition("==>")[0].split())
    first = re.sub(r"^(\[\w+\]|Inference error\(s\):|\(op_type:[^)]*\):|\s)+", "", first)
    return first.partition(" (op_type:")[0].rstrip(" .:")


def _cut(text: str) -> str:
    """One line, however long the names in it are, and whatever is in them."""
    line = " ".join(text.split())
    return line if len(line) <= _WORDS else f"{line[: _WORDS - 1]}…"


def _as_the_checker_reads_it(model: onnx.ModelProto) -> None:
    """Leave out what runtimes forgive or what is checked above: data that is elsewhere, domains, written shapes."""
    without_external_data(model.graph)
    del model.graph.value_info[:]
    for opset in model.opset_import:
        opset.domain = "" if opset.domain == "ai.onnx" else opset.domain
    for nodes, _ in every_graph(model):
        for node in nodes:
            node.domain = _domain_of(node)
    known = {opset.domain for opset in model.opset_import}
    for domain in {node.domain for nodes, _ in every_graph(model) for node in nodes} - known:
        model.opset_import.append(onnx.helper.make_opsetid(domain, 1))


def _domain_of(node: onnx.NodeProto) -> str:
    if node.domain in _STANDARD:
        return "trt" if _is_plugin(node) else ""
    return node.domain
