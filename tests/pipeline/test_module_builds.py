from __future__ import annotations

import json
import shlex
from pathlib import Path

import onnx
import pytest

from fimaq_deploy import Recipe, load_model, load_quantized
from fimaq_deploy.manifest import sha256
from fimaq_deploy.pipeline.builds import BuildResult, build
from fimaq_deploy.report import Report

QUICK = Recipe.load("w8a8").replace(reconstruction={"iterations": 3}, tuning={"iterations": 2})
TARGETS = ("onnxruntime-cpu", "tensorrt-rtx")


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> BuildResult:
    """The whole road on a shipped model, once."""
    out = tmp_path_factory.mktemp("build") / "swin_digits"
    return build("swin_digits", recipe=QUICK, targets=TARGETS, out=out, device="cpu", max_drop=0.5)


def test_every_artifact_is_there(result: BuildResult) -> None:
    names = {path.name for path in result.out.iterdir()}
    assert {
        "model.onnx",
        "model.fp32.onnx",
        "model.tensorrt-rtx.onnx",
        "model.fp16.onnx",
        "quantized.safetensors",
        "recipe.yaml",
        "report.json",
        "report.md",
        "report.html",
        "predictions.safetensors",
        "replay.npz",
        "manifest.json",
    } <= names
    assert {path.name for path in result.out.parent.iterdir()} == {"swin_digits"}


def test_the_manifest_is_true(result: BuildResult) -> None:
    manifest = json.loads((result.out / "manifest.json").read_text())
    assert set(manifest["files"]) == {path.name for path in result.out.iterdir()} - {"manifest.json"}
    for name, facts in manifest["files"].items():
        path = result.out / name
        assert facts == {"sha256": sha256(path), "size_bytes": path.stat().st_size}
    assert manifest["seed"] == 0
    assert "torch" in manifest["versions"]


def test_the_recipe_is_resolved_and_reads_back(result: BuildResult) -> None:
    """What the user left open is decided in the file, and what the user said is unchanged."""
    saved = Recipe.load(result.out / "recipe.yaml")
    assert saved.model_dump(exclude={"rewrites"}) == QUICK.model_dump(exclude={"rewrites"})
    assert None not in saved.rewrites.model_dump().values()
    assert result.report.recipe == saved.model_dump(mode="json")


def test_the_report_reads_back_as_it_was_returned(result: BuildResult) -> None:
    assert Report.model_validate_json((result.out / "report.json").read_text()) == result.report


def test_every_row_keeps_its_promise(result: BuildResult) -> None:
    """The acceptance figures for W8A8: half a point lost, 99.9 % agreement with the reference, 99.5 % when fused."""
    report = result.report
    assert result.failures == ()
    for row_id, least in (("onnx-fp32", 99.9), ("onnx-reference", 99.9), ("onnxruntime-cpu", 99.5)):
        row = report.row(row_id)
        assert row is not None
        assert row.comparison is not None
        assert row.comparison.agreement >= least, row_id
    assert all(drop <= 0.5 for row in report.rows if (drop := report.drop(row)) is not None)


def test_no_stage_parts_from_fake_quant(result: BuildResult) -> None:
    assert [pair.to for pair in result.report.parity] == ["onnx-reference", "onnxruntime-cpu"]
    assert all(pair.first_parting is None and pair.differing_weights == [] for pair in result.report.parity)
    steps = {stage.name: stage.largest_step for stage in result.report.parity[0].stages}
    assert [name for name, step in steps.items() if step is None] == ["head"], "it stays in floats"
    assert len(steps) > 5 and all(step is None or step <= 1 for step in steps.values())


def test_latency_is_paired(result: BuildResult) -> None:
    quantized, original = result.report.row("onnxruntime-cpu"), result.report.row("onnx-fp32")
    assert quantized is not None
    assert original is not None
    assert quantized.latency[0].ratio_to == "onnx-fp32"
    assert quantized.latency[0].p50_ms > 0
    assert original.latency[0].speedup is None


def test_every_row_that_ran_shows_how_far_from_the_limit_it_is(result: BuildResult) -> None:
    """The floor is of work and machine, so the quantized row's is lower: the same sums in a quarter of the bytes."""
    quantized, original = result.report.row("onnxruntime-cpu"), result.report.row("onnx-fp32")
    assert quantized is not None
    assert original is not None
    for ours, floats in zip(quantized.latency, original.latency, strict=True):
        assert ours.floor_ms is not None
        assert floats.floor_ms is not None
        assert 0 < ours.floor_ms < floats.floor_ms
    assert quantized.peak_memory_bytes is not None
    assert quantized.peak_memory_bytes > quantized.size_bytes


def test_a_target_that_cannot_run_says_why(result: BuildResult) -> None:
    row = result.report.row("tensorrt-rtx")
    assert row is not None
    assert (row.not_run is None) == (row.accuracy is not None)
    assert [target.name for target in result.report.targets] == list(TARGETS)


def test_the_layer_plan_is_in_the_report(result: BuildResult) -> None:
    pytest.importorskip("tensorrt_rtx")
    (audit,) = result.report.audits
    assert (audit.target, audit.broken) == ("tensorrt-rtx", [])
    assert [block.name for block in audit.blocks] == [
        block.name for block in result.report.blocks if "tuning" not in block.name
    ]
    assert all(block.gemms == block.int8_gemms and block.twin_kernels for block in audit.blocks)
    left = [block.name for block in audit.blocks if block.left_alone]
    assert left == ["head"] == [block.name for block in audit.blocks if not block.gemms]


def test_the_report_says_what_stays_in_floats(result: BuildResult) -> None:
    notes = [note for note in result.report.data.notes if "left in high precision" in note]
    assert [note.split()[0] for note in notes] == ["head.fc"]


def test_half_precision_is_a_row_and_says_why_it_is_float16(result: BuildResult) -> None:
    row = result.report.row("tensorrt-rtx-fp16")
    assert row is not None
    assert (row.precision, row.deployed, row.title) == ("FP16", False, "TensorRT-RTX FP16")
    assert (row.not_run is None) == (row.accuracy is not None)
    assert any("FP16 around INT8" in note for note in result.report.data.notes)


def test_every_block_was_reconstructed(result: BuildResult) -> None:
    iterations = {block.name: block.iterations for block in result.report.blocks}
    assert next(iter(iterations)) == "patch_embed"
    assert iterations["head"] == iterations["layers.1.downsample"] == 3


def test_the_onnx_files_are_valid_and_small(result: BuildResult) -> None:
    for name in ("model.onnx", "model.fp32.onnx", "model.tensorrt-rtx.onnx"):
        onnx.checker.check_model(result.out / name)
    assert (result.out / "model.onnx").stat().st_size < 0.7 * (result.out / "model.fp32.onnx").stat().st_size


def test_the_quantized_model_loads_again(result: BuildResult) -> None:
    again = load_quantized(result.out / "quantized.safetensors", load_model("swin_digits"))
    assert again.recipe == Recipe.load(result.out / "recipe.yaml")


def test_the_command_asks_for_the_same_build(result: BuildResult) -> None:
    words = shlex.split(result.report.command)
    assert words[:2] == ["fimaq-deploy", "build"]
    assert [words[i + 1] for i, word in enumerate(words) if word == "--set"] == [
        "reconstruction.iterations=3",
        "tuning.iterations=2",
    ]
    assert [words[i + 1] for i, word in enumerate(words) if word == "--target"] == list(TARGETS)
    assert "--overwrite" in words


def test_an_interrupted_build_resumes_to_the_same_bytes(result: BuildResult, tmp_path: Path) -> None:
    def interrupt(step: str, done: int, total: int, detail: str) -> None:
        if (step, done) == ("quantize", 3):
            raise KeyboardInterrupt

    arguments = {"recipe": QUICK, "targets": TARGETS, "out": tmp_path / "out", "device": "cpu"}
    with pytest.raises(KeyboardInterrupt):
        build("swin_digits", progress=interrupt, **arguments)
    assert [path.name for path in tmp_path.iterdir()] == ["out.partial"]
    resumed = build("swin_digits", resume=True, **arguments)
    for name in ("model.onnx", "model.tensorrt-rtx.onnx", "quantized.safetensors", "recipe.yaml"):
        assert (resumed.out / name).read_bytes() == (result.out / name).read_bytes(), name
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
