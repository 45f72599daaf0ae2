"""Single arguments: what is meant by them, and one line for what cannot be; the others go through `test_request`."""

from __future__ import annotations

import pytest

from fimaq_deploy.errors import UserError
from fimaq_deploy.pipeline.arguments import AUTO, budget_of, default_out, named_recipe, resolve_targets, storage_for
from fimaq_deploy.recipe import Recipe


@pytest.mark.parametrize(
    ("model", "out"),
    [("swin_t", "build/swin_t"), ("my.models:small", "build/small"), ("a/b", "build/a_b"), ("x/y.onnx", "build/y")],
)
def test_default_out(model: str, out: str) -> None:
    assert default_out(model) == out


def test_targets_default_to_what_works_here() -> None:
    assert "onnxruntime-cpu" in resolve_targets(None)
    assert resolve_targets("tensorrt") == ("tensorrt",)
    assert resolve_targets(["tensorrt", "tensorrt"]) == ("tensorrt",)
    with pytest.raises(UserError, match="unknown target"):
        resolve_targets(["cuda"])


def test_auto_learns_as_a_preset_does_and_has_its_own_name() -> None:
    assert named_recipe(AUTO) == Recipe.load("w4a8").replace(name=AUTO)
    assert budget_of("w4a8", None, None, 1.0) is None
    budget = budget_of(AUTO, None, 1.5, None)
    assert budget is not None and (budget.megabytes, budget.speed) == (None, 1.5)


def test_four_bits_are_stored_where_the_oldest_gpu_reads_them() -> None:
    assert storage_for("int4", 21, ("tensorrt-rtx",), 80) == "int4"
    assert storage_for("auto", 21, ("tensorrt-rtx",), 75) == "auto"
    with pytest.raises(UserError, match=r"--weight-storage int4: .*tensorrt-rtx for compute capability 7\.5"):
        storage_for("int4", 21, ("onnxruntime-cpu", "tensorrt-rtx"), 75)
