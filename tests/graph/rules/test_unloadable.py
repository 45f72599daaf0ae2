"""Files that are ONNX and that no runtime loads, each made from a sound one by one change; and others beside them.

ONNX Runtime is asked too, where it is the one that refuses or takes a file.
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from fixtures.commands import document, refused
from fixtures.sessions import loads
from onnx import helper, numpy_helper

from fimaq_deploy import lint
from fimaq_deploy.graph.rules import Finding
from fimaq_deploy.target import TARGETS

Change = Callable[[onnx.ModelProto], Any]


def sound() -> onnx.ModelProto:
    """x -> MatMul (stored w) -> a -> Relu -> b; y = b + a."""
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"], "product"),
        helper.make_node("Relu", ["a"], ["b"], "relu"),
        helper.make_node("Add", ["b", "a"], ["y"], "add"),
    ]
    x, y = (helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["N", 4]) for name in "xy")
    stored = numpy_helper.from_array(np.eye(4, dtype=np.float32), "w")
    graph = helper.make_graph(nodes, "sound", [x], [y], [stored])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def with_branches() -> onnx.ModelProto:
    """An If whose branches read `b` from outside; the first branch computes `inner`."""
    model = sound()
    value = helper.make_tensor_value_info("inner", onnx.TensorProto.FLOAT, ["N", 4])
    then = helper.make_graph([helper.make_node("Neg", ["b"], ["inner"], "neg")], "then", [], [value])
    other = helper.make_graph([helper.make_node("Abs", ["b"], ["inner"], "abs")], "else", [], [value])
    model.graph.input.append(helper.make_tensor_value_info("choice", onnx.TensorProto.BOOL, []))
    model.graph.node.append(
        helper.make_node("If", ["choice"], ["z"], "if", then_branch=then, else_branch=other),
    )
    model.graph.output[0].name = "z"
    return model


def branch(model: onnx.ModelProto) -> onnx.GraphProto:
    return next(each.g for each in model.graph.node[-1].attribute if each.name == "then_branch")


def operator(name: str, domain: str = "", imported: bool = True, at: int = 1) -> Change:
    def change(model: onnx.ModelProto) -> None:
        model.graph.node[at].op_type, model.graph.node[at].domain = name, domain
        if domain and imported:
            model.opset_import.append(helper.make_opsetid(domain, 1))

    return change


def opset(version: int, domain: str = "") -> Change:
    def change(model: onnx.ModelProto) -> None:
        kept = [each for each in model.opset_import if each.domain != domain]
        del model.opset_import[:]
        model.opset_import.extend([*kept, helper.make_opsetid(domain, version)])

    return change


def reads(node: int, place: int, name: str) -> Change:
    return lambda model: model.graph.node[node].input.__setitem__(place, name)


def writes(node: int, name: str) -> Change:
    return lambda model: model.graph.node[node].output.__setitem__(0, name)


def stores(array: np.ndarray) -> Change:
    return lambda model: model.graph.initializer[0].CopyFrom(numpy_helper.from_array(array, "w"))


BROKEN: dict[str, tuple[Change, str]] = {
    "unknown operator": (operator("Frobnicate"), "ONNX has no operator Frobnicate"),
    "unknown operator at the end": (operator("matmul", at=2), "no operator matmul"),
    "operator of a later opset": (lambda m: (operator("Gelu")(m), opset(13)(m)), "opset 13 has no operator Gelu"),
    "operator that is gone": (operator("Upsample"), "Upsample is gone since opset 10"),
    "unknown operator of ONNX Runtime": (operator("Blah", "com.microsoft"), "ONNX Runtime has no operator Blah"),
    "unknown domain": (operator("Relu", "my.domain"), "the domain my.domain"),
    "unknown domain, not imported": (operator("Relu", "my.domain", imported=False), "the domain my.domain"),
    "unknown domain like a known one": (operator("Gelu", "com.microsoft.mine"), "the domain com.microsoft.mine"),
    "cycle": (reads(0, 0, "y"), "a cycle: "),
    "cycle of two": (reads(1, 0, "y"), "a cycle: "),
    "cycle of one": (reads(1, 0, "b"), "a cycle: relu -> relu"),
    "dangling first input": (reads(0, 0, "nowhere"), "it reads nowhere, which nothing computes"),
    "dangling second input": (reads(2, 1, "w2"), "it reads w2"),
    "dangling weight": (lambda m: m.graph.initializer.pop(), "it reads w, "),
    "dangling output": (lambda m: setattr(m.graph.output[0], "name", "gone"), "the output gone is computed by nothing"),
    "output twice": (writes(1, "a"), "a is computed here and is already"),
    "output like an input": (writes(1, "x"), "x is computed here"),
    "output like a weight": (writes(1, "w"), "w is computed here"),
    "weights twice": (lambda m: m.graph.initializer.append(m.graph.initializer[0]), "two stored tensors are named w"),
    "opset 0": (opset(0), "opset 0: onnx"),
    "negative opset": (opset(-3), "opset -3: onnx"),
    "opset of the future": (opset(999), "opset 999: onnx"),
    "largest opset": (opset(2**63 - 1), "opset 9223372036854775807: onnx"),
    "no opset": (lambda m: m.opset_import.pop(), "does not say its opset"),
    "opset of another domain": (opset(99, "ai.onnx.ml"), "opset 99 of ai.onnx.ml"),
    "unknown attribute": (
        lambda m: m.graph.node[1].attribute.append(helper.make_attribute("foo", 3)),
        "Unrecognized attribute: foo",
    ),
    "too many inputs": (lambda m: m.graph.node[1].input.append("a"), "input size 2"),
    "no inputs": (lambda m: m.graph.node[1].input.pop(), "input size 0"),
    "ir version of the future": (lambda m: setattr(m, "ir_version", 999), "ir_version 999"),
    "sizes that do not fit": (stores(np.ones((5, 4), np.float32)), "Incompatible dimensions"),
    "types that do not fit": (stores(np.ones((4, 4), np.int64)), "inconsistent type"),
    "numbers that are missing": (lambda m: setattr(m.graph.initializer[0], "raw_data", b"\0"), "1 bytes are stored"),
    "too many numbers": (
        lambda m: m.graph.initializer[0].dims.__setitem__(0, 1),
        "64 bytes are stored for",
    ),
    "negative size": (lambda m: m.graph.initializer[0].dims.__setitem__(slice(None), [-4, -4]), "of sizes [-4, -4]"),
    "long name over lines": (reads(0, 0, "no\nwhere" * 99), "it reads no where"),
}
BROKEN_INSIDE: dict[str, tuple[Change, str]] = {
    "unknown operator": (lambda m: setattr(branch(m).node[0], "op_type", "Frobnicate"), "no operator Frobnicate"),
    "unknown domain": (lambda m: setattr(branch(m).node[0], "domain", "my.domain"), "the domain my.domain"),
    "dangling": (lambda m: branch(m).node[0].input.__setitem__(0, "nowhere"), "it reads nowhere"),
    "dangling output": (lambda m: setattr(branch(m).output[0], "name", "gone"), "the output gone"),
    "cycle inside": (lambda m: branch(m).node[0].input.__setitem__(0, "inner"), "a cycle: neg -> neg"),
    "cycle through a branch": (lambda m: branch(m).node[0].input.__setitem__(0, "z"), "a cycle: if -> if"),
}
# What ONNX Runtime takes, or would with the plugin or package that has the operator.
TAKEN: dict[str, Change] = {
    "sound": lambda m: None,
    "ONNX Runtime's operator": operator("Gelu", "com.microsoft"),
    "ONNX Runtime's operator without its opset": operator("Gelu", "com.microsoft", imported=False),
    "the long name of the standard": operator("Relu", "ai.onnx", imported=False),
    "no size of the output": lambda m: m.graph.output[0].type.tensor_type.ClearField("shape"),
    "wrong size of a value between": lambda m: m.graph.value_info.append(helper.make_tensor_value_info("a", 1, [7])),
}
TAKEN_BY_OTHERS: dict[str, Change] = {
    "plugin": operator("Swish", "trt"),
    "plugin of the standard domain": operator("EfficientNMS_TRT"),
    "plugin in its namespace": operator("PillarScatter", "TRT", imported=False),
    "extension": operator("BertTokenizer", "ai.onnx.contrib"),
}


@pytest.fixture
def file(tmp_path: Path) -> Callable[[onnx.ModelProto, Change], Path]:
    def write(model: onnx.ModelProto, change: Change) -> Path:
        change(model)
        (tmp_path / "graph.onnx").write_bytes(model.SerializeToString())
        return tmp_path / "graph.onnx"

    return write


def of_the_rule(path: Path, target: str = "onnxruntime-cpu") -> list[Finding]:
    return [finding for finding in lint(path, target) if finding.rule == "unloadable"]


@pytest.mark.parametrize("name", BROKEN)
def test_what_no_runtime_loads_is_an_error_everywhere(file, name):
    change, said = BROKEN[name]
    path = file(sound(), change)
    assert name == "weights twice" or not loads(path)
    for target in TARGETS:
        found = of_the_rule(path, target)
        assert [finding.severity for finding in found] == ["error"]
        assert said in found[0].problem and found[0].remedy
        assert "\n" not in found[0].problem and len(found[0].problem) < 200


@pytest.mark.parametrize("name", BROKEN_INSIDE)
def test_the_graphs_inside_a_node_are_looked_through(file, name):
    change, said = BROKEN_INSIDE[name]
    path = file(with_branches(), change)
    assert not loads(path)
    assert said in " ".join(finding.problem for finding in of_the_rule(path))


@pytest.mark.parametrize("change", TAKEN.values(), ids=TAKEN)
def test_what_a_runtime_loads_is_none(file, change):
    path = file(sound(), change)
    assert loads(path) and not of_the_rule(path)


@pytest.mark.parametrize("change", TAKEN_BY_OTHERS.values(), ids=TAKEN_BY_OTHERS)
def test_operators_of_plugins_are_known(file, change):
    assert not of_the_rule(file(sound(), change), "tensorrt")


def test_branches_and_functions_that_are_sound_are_none(file):
    path = file(with_branches(), lambda m: None)
    assert loads(path) and not of_the_rule(path)

    def function(model: onnx.ModelProto) -> None:
        operator("Twice", "mine")(model)
        body = [helper.make_node("Add", ["p", "p"], ["q"], "sum")]
        model.functions.append(helper.make_function("mine", "Twice", ["p"], ["q"], body, model.opset_import[:1]))

    path = file(sound(), function)
    assert loads(path) and not of_the_rule(path)


def test_nodes_out_of_order_are_a_warning(file):
    def turn(model: onnx.ModelProto) -> None:
        nodes = list(model.graph.node)[::-1]
        del model.graph.node[:]
        model.graph.node.extend(nodes)

    path = file(sound(), turn)
    (finding,) = of_the_rule(path)
    assert loads(path) and finding.severity == "warning" and "sorts nodes" in finding.problem


def test_an_output_that_is_listed_twice_is_a_warning(file):
    path = file(sound(), lambda m: m.graph.output.append(m.graph.output[0]))
    (finding,) = of_the_rule(path)
    assert loads(path) and finding.severity == "warning" and "listed twice" in finding.problem


def test_two_nodes_of_one_name_are_an_error_where_the_runtime_refuses_them(file):
    path = file(sound(), lambda m: setattr(m.graph.node[1], "name", "product"))
    assert not loads(path)
    assert [finding.severity for finding in of_the_rule(path)] == ["error"]
    assert [finding.severity for finding in of_the_rule(path, "tensorrt")] == ["warning"]


def test_the_command_ends_with_exit_code_1_and_says_where(file, capsys):
    path = file(sound(), reads(1, 0, "nowhere"))
    told = document(capsys, "lint", path, "--target", "tensorrt", code=1)
    assert [(each["rule"], each["node"], each["tensor"]) for each in told["findings"]] == [
        ("unloadable", "relu", "nowhere")
    ]


def zipped(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("model.onnx", sound().SerializeToString())


NO_MODEL: dict[str, Callable[[Path], Any]] = {
    "empty": lambda path: path.write_bytes(b""),
    "text": lambda path: path.write_text("a text\n" * 20),
    "zip": zipped,
    "truncated": lambda path: path.write_bytes(sound().SerializeToString()[:-40]),
    "halved": lambda path: path.write_bytes(sound().SerializeToString()[: sound().ByteSize() // 2]),
    "damaged names": lambda path: path.write_bytes(sound().SerializeToString().replace(b"relu", b"\xff\xfe\xfd\xfc")),
    "folder": lambda path: path.mkdir(),
}


@pytest.mark.parametrize("make", NO_MODEL.values(), ids=NO_MODEL)
def test_what_is_no_model_is_one_line(make, tmp_path, capsys):
    make(tmp_path / "graph.onnx")
    assert "graph.onnx" in refused(capsys, "lint", tmp_path / "graph.onnx", "--target", "onnxruntime-cpu")
