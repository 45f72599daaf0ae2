"""The FP16 twins compile on TensorRT-RTX, which needs no GPU, into the kernels that they were written for."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from fimaq_deploy.engines.tensorrt import build_engine

pytest.importorskip("tensorrt_rtx")


def plan(path: Path) -> list[str]:
    """The compiled layers, from the builder's log."""
    engine = path.with_suffix(".engine")
    log = build_engine(path, engine, "tensorrt-rtx", compute_for=[(8, 9)], verbose=True).log
    return [line for line in log.splitlines() if "LayerType: " in line]


def test_all_linears_run_in_int8_and_attention_is_one_kernel(exported):
    layers = plan(exported("w8a8", "tensorrt-rtx")[1])
    gemms = [line for line in layers if "LayerType: gemm" in line]
    assert len(gemms) == 3 and all("Datatype: Int8" in line for line in gemms)
    assert sum("_mha_" in line.split(",")[0] for line in layers) == 1


@pytest.mark.parametrize("name", ["w4a4", "w4a16"])
def test_low_bits_compile(exported, name):
    kinds = Counter(line.split("LayerType: ")[1].split(",")[0] for line in plan(exported(name, "tensorrt-rtx")[1]))
    assert kinds["gemm"] + kinds["runtime_fusion"] + kinds["kgen"] > 3
