"""The plan in a builder's log is read line by line, in the format that was seen."""

from __future__ import annotations

import pytest

from fimaq_deploy.errors import UserError
from fimaq_deploy.verify.layer_plan import Kernel, PlanTensor, read_plan


def test_a_line_of_the_plan_is_read_whole() -> None:
    line = (
        "    Name: a/MatMul_myl0_4, LayerType: gemm, Inputs: [ { Name: x, Dimensions: [-1,384], Strides: [384,1], "
        "Datatype: Int8, Format: (Arbitrary) Format with stride order = [1,2,0] }, { Name: y, Dimensions: [], "
        "Datatype: Half, Format: (Linear) Row major }], Constants: [ { Name: w, Dimensions: [384,1152], "
        "Format/Datatype: Int4 }], Outputs: [], TacticName: t, StreamId: 0, Metadata: [ONNX Layer: a/MatMul][ONNX "
        "Layer: a/Add][ONNX Layer: a/MatMul]"
    )
    (kernel,) = read_plan(f"[V] something\n{line}\n")
    assert (kernel.name, kernel.kind, kernel.outputs) == ("a/MatMul_myl0_4", "gemm", ())
    assert kernel.inputs == (PlanTensor("x", (-1, 384), "Int8"), PlanTensor("y", (), "Half"))
    assert kernel.constants == (PlanTensor("w", (384, 1152), "Int4"),)
    assert kernel.nodes == ("a/MatMul", "a/Add")


def test_a_log_without_a_plan_is_a_user_error() -> None:
    with pytest.raises(UserError, match="holds no layer plan"):
        read_plan("[I] Finished engine building")


@pytest.mark.parametrize("log", ["", "Name: x, LayerType: gemm", "Inputs: [], Outputs: []\nName: x"])
def test_half_a_line_is_no_plan(log: str) -> None:
    with pytest.raises(UserError, match="build with verbose=True") as raised:
        read_plan(log)
    assert "\n" not in str(raised.value)


def line(name: str, parts: str, end: str = "TacticName: t") -> str:
    return f"[V] Name: {name}, LayerType: kgen, Inputs: [], {parts}, {end}, Metadata: [ONNX Layer: {name}]"


def test_kernels_keep_the_order_of_execution_and_other_lines_are_none() -> None:
    one, two = line("one", "Outputs: []"), line("two, of more", "Outputs: []", "StreamId: 0")
    kernels = read_plan(f"[I] Engine Layer Information:\n{two}\n[W] Name: not a layer\n{one}\n")
    assert [kernel.name for kernel in kernels] == ["two, of more", "one"]
    assert kernels[1] == Kernel("one", "kgen", (), (), (), ("one",))


@pytest.mark.parametrize("end", ["TacticName: t", "ParameterType: Constant", "StreamId: 0"])
def test_tensors_are_read_whatever_follows_them(end: str) -> None:
    second = "{ Name: b, Dimensions: [-1,3], Datatype: Half }"
    written = f"Outputs: [ {{ Name: a[0], Dimensions: [2], Datatype: Int8 }}, {second}]"
    (kernel,) = read_plan(line("k", written, end))
    assert kernel.outputs == (PlanTensor("a[0]", (2,), "Int8"), PlanTensor("b", (-1, 3), "Half"))
    assert kernel.constants == kernel.inputs == ()


def test_a_kernel_of_no_onnx_node_has_none() -> None:
    (kernel,) = read_plan("Name: reformat, LayerType: Reformat, Inputs: [], Outputs: [], TacticName: , StreamId: 0")
    assert (kernel.kind, kernel.nodes) == ("Reformat", ())
