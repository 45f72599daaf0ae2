"""Only rows that nobody reads go: the same numbers, in real files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from fimaq_deploy.engines import load_engine
from fimaq_deploy.export.passes.first_row import drop_unread_rows
from fimaq_deploy.verify.stages import compare_stages


@pytest.fixture
def whole(every_row) -> Path:
    return every_row("onnxruntime-cpu")


def spared(source: Path, path: Path) -> ir.Model:
    """The file with the pass applied, saved at `path`."""
    model = ir.load(source)
    drop_unread_rows(model)
    ir.save(model, path)
    return model


def test_everything_behind_the_last_attention_computes_one_row(whole, exported, images, tmp_path):
    model = spared(whole, tmp_path / "spared.onnx")
    assert {node.name for node in ir.load(exported("class-token")[1]).graph} == {node.name for node in model.graph}
    slices = [node for node in model.graph if node.op_type == "Slice" and "first_row" in node.outputs[0].name]
    assert [node.name for node in slices] == ["parts.1.proj.quantize/Slice", "parts.1/Slice_3"]
    product = next(node for node in model.graph if node.name == "parts.1.proj/MatMul")
    assert [list(value.shape)[1] for value in (product.inputs[0], product.outputs[0])] == [1, 1]
    files = (whole, tmp_path / "spared.onnx")
    before, after = (load_engine(file, optimisations=False, threads=1)(images.numpy()) for file in files)
    np.testing.assert_allclose(after, before, atol=1e-6)


def test_parity_judges_the_rows_that_are_there(exported, images, tmp_path):
    quantized, path = exported("class-token")
    report = compare_stages(quantized, path, images, threads=1)
    assert report.first_parting is None and report.largest_output_difference < 1e-4
    assert max(stage.relative_difference for stage in report.stages) < 1e-4


@pytest.mark.parametrize("name", ["w8a8", "w4a16"])
def test_where_all_rows_are_read_all_stay(exported, tmp_path, name):
    before = ir.load(exported(name)[1])
    after = spared(exported(name)[1], tmp_path / "same.onnx")
    assert [node.name for node in after.graph] == [node.name for node in before.graph]


def test_a_second_reader_keeps_its_rows(whole):
    """As in a distilled DeiT, whose heads read two tokens."""
    model = ir.load(whole)
    gather = next(node for node in model.graph if node.name == "parts.2/Gather")
    model.graph.outputs.append(gather.inputs[0])
    before = [node.name for node in model.graph]
    drop_unread_rows(model)
    assert [node.name for node in model.graph] == before


INTEGERS = ", ".join(str(number % 15 - 7) for number in range(16))


def rows(
    behind: str = "n = LayerNormalization <axis = -1> (m, ones) y = Gather <axis = 1> (n, first)", **names: str
) -> str:
    """Five rows of four columns through a product of integers, a residual and what is behind them."""
    named = {"output": "float[b, 4] y", "scale": "scale", "zero": "zero", "skip": "x", **names}
    return f"""g (float[b, 5, 4] x) => ({named["output"]})
    <float scale = {{0.25}}, int8 zero = {{0}}, int64 first = {{0}}, int64 second = {{1}}, int64[2] both = {{0, 1}},
     float[5] five = {{0.25, 0.5, 0.25, 0.25, 0.25}}, int8[5] zeros = {{0, 0, 0, 0, 0}}, int64[1] rows = {{1}},
     float[4] ones = {{1.0, 2.0, 1.0, 1.0}}, float[5, 4] table = {{{", ".join(f"{n}.0" for n in range(20))}}},
     int8[4, 4] stored = {{{INTEGERS}}}, float[4] scales = {{0.5, 0.25, 1.0, 0.5}}> {{
        q = QuantizeLinear <axis = 1> (x, {named["scale"]}, {named["zero"]})
        d = DequantizeLinear <axis = 1> (q, {named["scale"]}, {named["zero"]})
        w = DequantizeLinear <axis = 1> (stored, scales)
        p = MatMul (d, w)
        m = Add (p, {named["skip"]})
        {behind}
    }}"""


def test_the_first_row_is_computed_alone(through, noise):
    found = through(drop_unread_rows, rows(), x=noise(2, 5, 4))
    assert found.changed and found.operators[1][0] == "Slice"
    assert found.operators[1].count("Slice") == 1, "what two nodes read is sliced once"
    np.testing.assert_array_equal(found.results[1][0], found.results[0][0])
    assert all(list(node.outputs[0].shape)[1] == 1 for node in found.model.graph if node.op_type in ("Add", "MatMul"))


BEHIND = "LayerNormalization <axis = -1> (m, ones) y = Gather <axis = 1>"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (rows(f"n = {BEHIND} (n, second)"), "it reads other rows than the first"),
        (rows(f"n = {BEHIND} (n, both)", output="float[b, 2, 4] y"), "it reads other rows than the first"),
        (rows("n = Gather <axis = 0> (m, first) y = Relu (n)", output="float[5, 4] y"), "it reads other rows"),
        (rows("n = Gather <axis = 1> (x, first) y = Relu (n)"), "no product with integer weights"),
        # Someone else reads the rows: a second token, a mean, whoever runs the file, or the norm runs over rows.
        (
            rows(f"n = {BEHIND} (n, first) z = ReduceMean (n, rows)", output="float[b, 4] y, float[b, 1, 4] z"),
            "no product",
        ),
        (rows(f"n = {BEHIND} (n, first)", output="float[b, 4] y, float[b, 5, 4] n"), "no product"),
        (rows(f"n = {BEHIND} (n, first)", output="float[b, 4] y, float[b, 5, 4] m"), "no product"),
        (rows("n = LayerNormalization <axis = 1> (m, table) y = Gather <axis = 1> (n, first)"), "no product"),
        (rows("n = Softmax <axis = 1> (m) y = Gather <axis = 1> (n, first)"), "no product"),
        # A table with a number for each row, and a scale for each of them.
        (rows("n = Add (m, table) y = Gather <axis = 1> (n, first)"), "no product"),
    ],
)
def test_where_other_rows_matter_all_stay_and_it_says_why(through, noise, text, why):
    found = through(drop_unread_rows, text, x=noise(2, 5, 4))
    assert not found.changed and found.operators[0] == found.operators[1]
    (reason,) = found.obstacles.values()
    assert why in reason


def test_a_scale_for_each_row_stays_whole(through, noise):
    """What is behind it is one row all the same."""
    found = through(drop_unread_rows, rows(scale="five", zero="zeros"), x=noise(2, 5, 4))
    assert found.operators[1].index("Slice") > found.operators[1].index("QuantizeLinear")
    np.testing.assert_array_equal(found.results[1][0], found.results[0][0])


def test_one_row_is_not_sliced_again(draw):
    text = rows().replace("float[b, 5, 4] x", "float[b, 1, 4] x")
    assert list(drop_unread_rows.obstacles(draw(text)).values()) == ["it does not read one row of several"]
