"""A model against all files of a folder: what parts is said as sentences, for programs and by the exit code."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import pytest
from fixtures.artifacts import write_facts
from fixtures.commands import refused, run
from torch import Tensor

from fimaq_deploy.engines.load import load_engine
from fimaq_deploy.runtime.onnx_metadata import contract_in
from fimaq_deploy.runtime.replay import REPLAY, Replay
from fimaq_deploy.verify.block_parity import Comparison, Outcome, parity
from fimaq_deploy.verify.flips import Flips
from fimaq_deploy.verify.stages import AS_WRITTEN, FUSED, ParityReport, StageParity

Made: TypeAlias = tuple[Path, Any]
Output: TypeAlias = pytest.CaptureFixture[str]


def test_the_command_compares_a_folder(folder: Made, capsys: Output) -> None:
    assert run("parity", folder[0], "--model", "vit_digits", "--count", 4) == 0
    text = capsys.readouterr().out
    assert "model.onnx: integer weights equal" in text
    assert "onnx-reference: " in text and "onnxruntime-cpu: 100.00 % of 4 images" in text


def test_the_command_fails_where_they_part(
    folder: Made, changed: Callable[..., Path], tmp_path: Path, capsys: Output
) -> None:
    changed(folder[0], tmp_path, "blocks.1.attn.proj.q_weight", lambda weight: -weight)
    (tmp_path / "quantized.safetensors").write_bytes((folder[0] / "quantized.safetensors").read_bytes())
    assert run("parity", tmp_path, "--model", "vit_digits", "--count", 2, "--json", "-") == 1
    captured = capsys.readouterr()
    document = json.loads(captured.out)
    assert document["schema"] == "fimaq-deploy/parity/1"
    assert document["weights"] == {"model.onnx": ["blocks.1.attn.proj.q_weight"]}
    assert [each["first_parting"] for each in document["comparisons"]] == ["blocks.1", "blocks.1"]
    assert "failed: onnx-reference parts at blocks.1" in captured.err


@pytest.fixture
def artifact(folder: Made, images: Tensor, tmp_path: Path) -> Path:
    """The folder as a build leaves it, with the answers of its file."""
    built = tmp_path / "built"
    shutil.copytree(folder[0], built)
    shown = images[:4].numpy()
    Replay(shown, {"onnxruntime-cpu": load_engine(built / "model.onnx").outputs(shown)}).save(built / REPLAY)
    _seal(built)
    return built


def _seal(built: Path) -> None:
    contract = contract_in(built / "model.onnx", checked=False)
    assert contract is not None
    write_facts(built, contract, model="vit_digits", weights="pretrained")


def test_verify_names_the_block_where_an_engine_parts(
    artifact: Path, changed: Callable[..., Path], capsys: Output
) -> None:
    assert run("verify", artifact, "--target", "onnxruntime-cpu") == 0
    assert "parity" not in capsys.readouterr().out
    changed(artifact, artifact, "blocks.1.attn.proj.q_weight", lambda weight: -weight)
    _seal(artifact)  # whoever changed it wrote the hashes anew
    assert run("verify", artifact, "--target", "onnxruntime-cpu") == 1
    told = capsys.readouterr().err
    assert "does not compute what the build measured" in told
    assert "failed: parity: model.onnx: weight blocks.1.attn.proj.q_weight holds other integers" in told
    assert "failed: parity: onnxruntime-cpu parts at blocks.1" in told


def test_verify_says_why_no_block_can_be_named(artifact: Path, changed: Callable[..., Path], capsys: Output) -> None:
    (artifact / "quantized.safetensors").unlink()
    changed(artifact, artifact, "blocks.1.attn.proj.q_weight", lambda weight: -weight)
    _seal(artifact)
    assert run("verify", artifact, "--target", "onnxruntime-cpu") == 1
    captured = capsys.readouterr()
    assert "cannot be named here" in captured.out and "parity" not in captured.err.replace("`fimaq-deploy parity`", "")


def test_a_quantized_model_alone_is_exported_for_the_occasion(folder: Made, tmp_path: Path) -> None:
    alone = tmp_path / "alone.safetensors"
    alone.write_bytes((folder[0] / "quantized.safetensors").read_bytes())
    outcome = parity(alone, model="vit_digits", count=2)
    assert outcome.partings == [] and outcome.weights == {"model.onnx": []}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("nowhere",), "no quantized model nowhere"),
        ((".",), "no quantized model"),
        (("{folder}",), "name it with --model"),
        (("{folder}", "--model", "vit_digits", "--count", "0"), "expected 1 to"),
        (("{folder}", "--model", "swin_digits"), "belong to another model"),
    ],
)
def test_bad_input_is_one_line(folder: Made, capsys: Output, arguments: tuple[str, ...], said: str) -> None:
    assert said in refused(capsys, "parity", *(argument.format(folder=folder[0]) for argument in arguments))


def report(stage: StageParity, *, as_written: bool = True) -> ParityReport:
    return ParityReport((stage,), 0.5, math.inf, AS_WRITTEN if as_written else FUSED, as_written)


FINE = StageParity("embed", 0.25, 0.125, 0.0, 0.5, Flips(1, 0.001, 0.0))
WRONG = StageParity("blocks.0", math.nan, math.inf, 1.0, 1.0)


def test_what_parts_is_said_file_by_file_and_stage_by_stage() -> None:
    weights = {"model.onnx": ["a", "b"], "tensorrt.onnx": []}
    comparisons = (Comparison("one", "model.onnx", report(FINE)), Comparison("two", "model.onnx", report(WRONG)))
    outcome = Outcome("vit", 4, weights, comparisons)
    assert outcome.partings == ["model.onnx: weight a holds other integers", "two parts at blocks.0"]
    assert Outcome("vit", 4, {"model.onnx": []}, comparisons[:1]).partings == []


def test_for_programs_what_is_not_finite_or_not_measured_is_null() -> None:
    comparisons = (Comparison("one", "f", report(FINE)), Comparison("two", "f", report(WRONG, as_written=False)))
    text = json.dumps(Outcome("vit", 4, {}, comparisons).document(), allow_nan=False)
    first, second = json.loads(text)["comparisons"]
    assert (first["judged"], second["judged"]) == ("integers of every quantizer", "integers behind each stage")
    assert (first["agreement"], first["largest_output_difference"], first["first_parting"]) == (0.5, None, None)
    assert first["stages"] == [
        {
            "name": "embed",
            "largest_difference": 0.25,
            "relative_difference": 0.125,
            "differing": 0.0,
            "accumulated": 0.5,
            "largest_step": 1,
            "flipped": 0.001,
        }
    ]
    assert second["first_parting"] == "blocks.0"
    nulls = {key for key, value in second["stages"][0].items() if value is None}
    assert nulls == {"largest_difference", "relative_difference", "largest_step", "flipped"}
