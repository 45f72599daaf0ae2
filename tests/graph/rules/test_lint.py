"""The command and the function around the rules: our own exports, order, bad input, JSON."""

from __future__ import annotations

import json

import numpy as np
import onnx
import pytest

from fimaq_deploy.cli import main
from fimaq_deploy.errors import UserError
from fimaq_deploy.graph.rules import RULES, lint
from fimaq_deploy.target import TARGETS


@pytest.mark.parametrize("name", ["w8a8", "w4a4", "offset", "w4a16"])
@pytest.mark.parametrize("twin", [None, "tensorrt-rtx"])
def test_our_own_exports_are_clean(exported, name, twin):
    """Three findings are right about a model that was quantized by hand. The head has 10 classes, below what a CPU
    gains from, and is behind a mean; and a Clip stands before the QuantizeLinear behind attention where a grid has
    fewer than 8 bits.
    """
    path = exported(name, twin)[1]
    tiny = {("tiny-product", "parts.2.fc/MatMul")}
    pooled = ("pooled-head", "parts.2.fc/MatMul")
    expected = {pooled, ("clipped-attention", "parts.1.proj.quantize/Clip")} if twin else tiny
    for target in TARGETS.values():
        if (target.high_precision == "float16") == (twin is not None):
            found = {(f.rule, f.node) for f in lint(path, target)}
            # One target has no integer kernels, whatever a file looks like.
            assert {each for each in found if each[0] != "no-integer-kernel"} <= expected
            assert target.integers.native or name == "w4a16" or len(found - expected) == 1
    if name in ("w8a8", "w4a16") and twin:
        assert {(f.rule, f.node) for f in lint(path, twin)} == {pooled}


def test_unsigned_activations_are_for_cpus_only(exported):
    path = exported("unsigned")[1]
    assert {finding.rule for finding in lint(path, "tensorrt")} >= {"integer-type", "zero-point"}
    assert [finding.severity for finding in lint(path, "onnxruntime-cpu")] == ["warning"]


def test_every_rule_that_a_target_names_exists():
    assert {name for target in TARGETS.values() for name in target.lint_rules} <= set(RULES)
    assert all(any(rule.holds_for(target) for target in TARGETS.values()) for rule in RULES.values())


def mixed(sketch):
    """One warning, then two errors."""
    drawn = sketch()
    skip = drawn.quantized("x")
    y = drawn.node("MatMul", drawn.quantized("x", zero=np.uint8(3)), drawn.weight(64, 64))
    return drawn, drawn.node("Add", skip, y)


def test_errors_come_first_and_then_execution_order(sketch, judged):
    findings = judged(*mixed(sketch), "tensorrt-rtx")
    assert [f.rule for f in findings] == ["integer-type", "zero-point", "residual"]


@pytest.fixture
def path(sketch, tmp_path):
    drawn, output = mixed(sketch)
    onnx.save(drawn.model(output), tmp_path / "mixed.onnx")
    return tmp_path / "mixed.onnx"


def run(*arguments):
    with pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    return ended.value.code or 0


def test_the_command_prints_where_what_and_how_to_mend(path, capsys):
    assert run("lint", path, "--target", "tensorrt-rtx") == 1
    text = capsys.readouterr().out
    assert "zero point 3" in text and "quantize symmetrically" in text and "QuantizeLinear_" in text
    assert "2 errors, 1 warnings" in text


def test_warnings_alone_are_no_failure(path, capsys):
    assert run("lint", path, "--target", "onnxruntime-cuda") == 0
    assert "0 errors, 1 warnings" in capsys.readouterr().out


def test_json_on_standard_output_is_all_there_is(path, capsys):
    assert run("lint", path, "--target", "tensorrt", "--json", "-") == 1
    document = json.loads(capsys.readouterr().out)
    assert document["schema"] == "fimaq-deploy/lint/1" and document["errors"] == 2
    assert {"rule", "severity", "node", "tensor", "problem", "remedy"} == set(document["findings"][0])


def test_json_in_a_file_leaves_the_table(path, tmp_path, capsys):
    assert run("lint", path, "--target", "tensorrt", "--json", tmp_path / "found.json") == 1
    assert json.loads((tmp_path / "found.json").read_text())["warnings"] == 1
    assert "2 errors" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("content", "said"), [(b"text", "is not an ONNX model"), (b"", "holds no ONNX graph"), (None, "no ONNX file")]
)
def test_what_is_no_model_is_one_line(tmp_path, capsys, content, said):
    path = tmp_path / "bad.onnx"
    if content is not None:
        path.write_bytes(content)
    assert run("lint", path, "--target", "tensorrt") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ") and said in line and "bad.onnx" in line


def test_an_unknown_target_is_one_line(path):
    with pytest.raises(UserError, match="unknown target 'tensort': expected one of"):
        lint(path, "tensort")


def test_weights_whose_file_is_gone_are_one_finding(path, tmp_path):
    model = onnx.load(path)
    onnx.save(model, tmp_path / "split.onnx", save_as_external_data=True, size_threshold=0, location="split.data")
    assert lint(tmp_path / "split.onnx", "tensorrt") == lint(path, "tensorrt")
    (tmp_path / "split.data").unlink()
    found = lint(tmp_path / "split.onnx", "tensorrt")
    assert {finding.rule for finding in found} == {"unloadable"} and "split.data is missing" in found[0].problem
