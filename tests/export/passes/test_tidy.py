"""What nothing reads goes, and nothing else."""

from __future__ import annotations

import numpy as np

from fimaq_deploy.export.passes.tidy import forget_notes, remove_unused


def test_what_nothing_reads_goes_with_its_constants(through, noise) -> None:
    text = """g (float[n, 2] x) => (float[n, 2] y) <float[2] a = {1.0, 2.0}> {
        unused = Add (x, a)
        more = Neg (unused)
        y = Relu (x)
    }"""
    found = through(remove_unused, text, x=noise(2, 2))
    assert found.changed and found.operators[1] == ["Relu"]
    np.testing.assert_array_equal(found.results[1][0], found.results[0][0])
    whole = through(remove_unused, text.replace("y = Relu (x)", "y = Relu (more)"), x=noise(2, 2))
    assert not whole.changed and whole.operators[0] == whole.operators[1]


def test_notes_and_names_that_are_there_twice(draw) -> None:
    model = draw("g (float[n, 2] x) => (float[n, 2] y) { a = Relu (x) b = Neg (a) y = Abs (b) }")
    model.opset_imports["com.example"] = 1
    model.metadata_props["who"] = model.graph[0].metadata_props["where"] = "here"
    model.graph[1].outputs[0].name = "a"
    assert forget_notes(model) and not forget_notes(model)
    assert not model.metadata_props and not model.graph[0].metadata_props
    assert dict(model.opset_imports) == {"": 21}
    assert len({node.outputs[0].name for node in model.graph}) == 3
