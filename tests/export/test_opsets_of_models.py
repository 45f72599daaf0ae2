"""--opset over the shipped models, the presets and the targets: a file of that opset that answers the same, or a line.

What a file answers is compared with fake-quant, as the default opset's file is; what a compiler makes of it with what
it makes of that one.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from fixtures.commands import expect_error, run
from fixtures.versions import knows_opset_23, runs_opset_23

import fimaq_deploy as fd
from fimaq_deploy.data.bundled import bundled_images
from fimaq_deploy.engines.runtimes import find_runtime
from fimaq_deploy.errors import UserError
from fimaq_deploy.export import Traced, trace
from fimaq_deploy.export.opset import DEFAULT_OPSET, FLOAT4_OPSET, OPSETS
from fimaq_deploy.graph.structure import read_structure
from fimaq_deploy.report.load import load_report
from fimaq_deploy.target import Target, find_target
from fimaq_deploy.verify.block_plan import audit_log
from fimaq_deploy.verify.layer_audit import builder_log

pytestmark = pytest.mark.slow

QUICK = {"reconstruction": {"iterations": 0}, "tuning": {"iterations": 0}, "scale_search": {"candidates": 1}}
EVERYWHERE = ("onnxruntime-cpu", "openvino-cpu", "tensorrt", "tensorrt-rtx")
GPUS = ("tensorrt", "tensorrt-rtx")
# The first opset that has words for a preset, the targets that it is for, and the GPUs that it asks for.
PRESETS: dict[str, tuple[int, tuple[str, ...], int | None]] = {
    "w8a8": (17, EVERYWHERE, None),
    "w6a6": (17, EVERYWHERE, None),
    "w4a8": (17, EVERYWHERE, None),
    "w4a4": (17, EVERYWHERE, None),
    "w3a3": (17, EVERYWHERE, None),
    "w4a16": (21, EVERYWHERE, None),
    "w8a8-fp8attention": (17, GPUS, 89),  # 17 tokens are too few for attention in 8-bit floats
    "fp8": (19, GPUS, 89),
    "nvfp4": (23, GPUS, 120),
}
CASES = [
    (name, preset, target)
    for name in ("vit_digits", "swin_digits")
    for preset, (_, found, _) in PRESETS.items()
    for target in found
]
IMAGES = bundled_images("digits", "test").take(64)


@cache
def quantized(name: str, preset: str, target: str) -> tuple[Traced, np.ndarray]:
    """The graph, and what fake-quant answers."""
    recipe = fd.Recipe.load(preset).replace(**QUICK)
    images = bundled_images("digits", "calibration", 16)
    made = fd.quantize(fd.load_model(name), images, recipe, target, sm=PRESETS[preset][2])
    with torch.no_grad():
        return trace(made), made(IMAGES).numpy()


def answers(path: Path, target: str) -> np.ndarray:
    """Of a target's own runtime where it is here, else of ONNX Runtime, node by node as the file says."""
    host = find_target(target).high_precision == "float32"
    run = fd.load_engine(path, target) if host else fd.load_engine(path, "onnxruntime-cpu", optimisations=False)
    return np.asarray(run(IMAGES.numpy()))


def agreement(found: np.ndarray, expected: np.ndarray) -> float:
    return float((found.argmax(1) == expected.argmax(1)).mean())


@pytest.mark.parametrize(("name", "preset", "target"), CASES)
def test_each_opset_answers_what_the_default_does_or_is_refused(
    name: str, preset: str, target: str, tmp_path: Path
) -> None:
    if find_runtime(target).availability()[1] and find_target(target).high_precision == "float32":
        pytest.skip(f"{target} does not run here")
    graph, learned = quantized(name, preset, target)
    usual = graph.write(tmp_path / "usual.onnx", target)
    runs = preset != "nvfp4"  # no runtime of a CPU has the vendor's operator
    default = answers(usual, target) if runs else learned
    least = min(agreement(default, learned), 0.95) - 0.05  # half floats flip a few 3-bit numbers, which differ by opset
    for opset in OPSETS:
        path = tmp_path / f"{opset}.onnx"
        if opset < PRESETS[preset][0]:
            with pytest.raises(UserError, match=rf"^--opset {opset}: .* came with opset {PRESETS[preset][0]}[;:] take"):
                graph.write(path, target, opset)
            assert not path.exists()
            continue
        proto = onnx.load(graph.write(path, target, opset))
        assert [one.version for one in proto.opset_import if not one.domain] == [opset]
        onnx.checker.check_model(proto, full_check=True)
        if runs and (opset < 23 or knows_opset_23 or target == "openvino-cpu"):
            found = answers(path, target)
            assert agreement(found, learned) >= least
            assert np.abs(found - learned).max() <= max(2 * np.abs(default - learned).max(), 1e-4)
    assert (
        usual.read_bytes() == (tmp_path / f"{FLOAT4_OPSET if preset == 'nvfp4' else DEFAULT_OPSET}.onnx").read_bytes()
    )


def compiled(path: Path, sm: int | None) -> tuple[Any, ...]:
    """Products by type and attentions, as TensorRT-RTX compiles them."""
    target = "tensorrt-rtx"
    blocks = audit_log(builder_log(path, find_runtime(target), [divmod(sm or 89, 10)]), read_structure(path))
    kinds = ("gemms", "int8_gemms", "fp8_gemms", "fp4_gemms", "weight_only_gemms", "dequantized_weights")
    counted = {kind: sum(getattr(block, kind) for block in blocks) for kind in kinds}
    return counted, Counter(block.attention for block in blocks), sum(block.kernels for block in blocks)


@pytest.mark.parametrize("floats", ["float16", "bfloat16"])
@pytest.mark.parametrize("preset", ["w8a8", "w4a4", "w4a16", "fp8", "nvfp4"])
@pytest.mark.parametrize("name", ["vit_digits", "swin_digits"])
def test_its_engine_is_that_of_the_default_opset(name: str, preset: str, floats: Any, tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx")
    least, _, sm = PRESETS[preset]
    target: Target = replace(find_target("tensorrt-rtx"), high_precision=floats)
    graph, _ = quantized(name, preset, target.name)
    usual = compiled(graph.write(tmp_path / "usual.onnx", target), sm)
    for opset in [one for one in OPSETS if one >= least]:
        assert compiled(graph.write(tmp_path / f"{opset}.onnx", target, opset), sm) == usual, opset


QUICKLY = (
    "reconstruction.iterations=0",
    "tuning.iterations=0",
    "scale_search.candidates=1",
    "reconstruction.images=16",
)


def build(name: str, preset: str, opset: int, targets: tuple[str, ...], out: Path, *more: str) -> list[str]:
    """The words of the command."""
    asked = [word for target in targets for word in ("--target", target)]
    asked += [word for setting in QUICKLY for word in ("--set", setting)]
    return ["build", "--model", name, "--recipe", preset, "--opset", str(opset), *asked, "--out", str(out), *more]


@pytest.mark.parametrize(
    ("name", "preset", "opset", "targets", "more"),
    [
        ("vit_digits", "w8a8", 17, EVERYWHERE, ("--embed-preprocessing",)),
        ("swin_digits", "w4a8", 19, EVERYWHERE, ()),
        ("swin_digits", "fp8", 19, GPUS, ("--sm", "89")),
        pytest.param("vit_digits", "w4a16", 23, EVERYWHERE, (), marks=runs_opset_23),
    ],
)
def test_every_file_of_a_build_is_of_the_opset_and_every_row_agrees(
    name: str, preset: str, opset: int, targets: tuple[str, ...], more: tuple[str, ...], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    assert run(*build(name, preset, opset, targets, out, *more)) == 0
    files = sorted(out.glob("*.onnx"))
    assert {f"model.{target}.onnx" for target in targets if "tensorrt" in target} < {one.name for one in files}
    for file in files:
        assert [one.version for one in onnx.load(file).opset_import if not one.domain] == [opset], file.name
    report = load_report(out)
    assert not any(target.failed for target in report.targets)
    ran = [row for row in report.rows if row.comparison is not None]
    assert len(ran) >= 4 and all((row.comparison.agreement or 0) > 95 for row in ran if row.comparison)


@pytest.mark.parametrize(
    ("preset", "opset", "needed", "targets"),
    [("w4a16", 19, 21, EVERYWHERE[:1]), ("fp8", 17, 19, GPUS), ("nvfp4", 21, 23, GPUS[1:])],
)
def test_a_build_is_refused_in_a_line(
    preset: str, opset: int, needed: int, targets: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = build("vit_digits", preset, opset, targets, tmp_path / "out", "--sm", "120")
    expect_error(capsys, f"which came with opset {needed}: take that or newer", *words)
    assert not (tmp_path / "out").exists()
