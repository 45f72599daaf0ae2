from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx.reference import ReferenceEvaluator

from fimaq_deploy.errors import UserError
from fimaq_deploy.graph.joined import join

TYPES = {"float": onnx.TensorProto.FLOAT, "double": onnx.TensorProto.DOUBLE}


def saved(path: Path, text: str, opset: int, kind: str = "float", batch: int | str = "n", reads: str = "x") -> Path:
    """A file of one operator, `text` as in "Relu y", from (batch, 3) to (batch, 3)."""
    operator, out = text.split()
    ends = [onnx.helper.make_tensor_value_info(name, TYPES[kind], [batch, 3]) for name in (reads, out)]
    graph = onnx.helper.make_graph([onnx.helper.make_node(operator, [reads], [out])], "g", ends[:1], ends[1:])
    imports = [onnx.helper.make_opsetid("", opset)]
    onnx.save(onnx.helper.make_model(graph, opset_imports=imports, ir_version=8 if opset < 19 else 10), path)
    return path


def test_the_second_reads_what_the_first_answers(tmp_path: Path) -> None:
    first = saved(tmp_path / "a.onnx", "Neg y", 21)
    second = saved(tmp_path / "b.onnx", "Relu z", 17, batch=1, reads="given")
    join(first, second, tmp_path / "out.onnx", {"given": "y"}, {"key": "value"})
    model = onnx.load(tmp_path / "out.onnx")
    onnx.checker.check_model(model, full_check=True)
    assert [one.name for one in model.graph.output] == ["z"] and model.metadata_props[0].value == "value"
    assert [one.version for one in model.opset_import] == [21]
    x = np.array([[1.0, -2.0, 0.0]], np.float32)
    (found,) = ReferenceEvaluator(model).run(None, {"x": x})
    assert np.array_equal(found, np.maximum(-x, 0))


def test_the_same_names_on_both_sides_are_not_mixed_up(tmp_path: Path) -> None:
    first, second = saved(tmp_path / "a.onnx", "Neg y", 21), saved(tmp_path / "b.onnx", "Relu y", 21)
    join(first, second, tmp_path / "out.onnx", {"x": "y"}, {})
    x = np.array([[1.0, -2.0, 0.0]], np.float32)
    (found,) = ReferenceEvaluator(str(tmp_path / "out.onnx")).run(None, {"x": x})
    assert np.array_equal(found, np.maximum(-x, 0))


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    first, second = saved(tmp_path / "a.onnx", "Neg y", 21), saved(tmp_path / "b.onnx", "Relu z", 17)
    with pytest.raises(UserError, match=r"a\.onnx and b\.onnx cannot be joined"):
        join(first, second, tmp_path / "out.onnx", {"x": "nothing"}, {})
    assert not (tmp_path / "out.onnx").exists()
