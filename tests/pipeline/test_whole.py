"""The model of a build around its encoder: rows run it whole, files are the encoder."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fixtures.detectors import detector, segmenter
from torch import nn

import fimaq_deploy as fd
from fimaq_deploy.data.intake import as_source
from fimaq_deploy.errors import UserError
from fimaq_deploy.models.families import family_of
from fimaq_deploy.pipeline.rows import Candidate
from fimaq_deploy.pipeline.whole import Whole, reads_directly
from fimaq_deploy.runtime.artifact import open_artifact
from fimaq_deploy.runtime.predictor import Predictor

QUICK = ["reconstruction.iterations=2", "reconstruction.images=8", "scale_search.candidates=4", "tuning.iterations=0"]


def pixels(count: int = 8) -> Any:
    return np.random.default_rng(0).random((count, 3, 32, 32), np.float32)


def test_an_encoder_is_its_own_whole(tiny_vit: Callable[..., nn.Module]) -> None:
    model = tiny_vit()
    whole, images = Whole.of(model), as_source(pixels())
    assert whole.is_encoder
    assert whole.place == ""
    assert whole.encoder_images(images) is images
    assert whole.around("anything") == "anything"
    assert whole.note("model.onnx", ["logits"], True) == []
    candidates = (Candidate("pytorch-fp32", "PyTorch FP32", model),)
    assert whole.candidates(candidates) == candidates


@torch.no_grad()
def test_every_row_but_the_original_has_something_else_in_the_encoders_place() -> None:
    whole, images = Whole.of(segmenter()), as_source(pixels())
    zeros = lambda shown: {"a": np.zeros((len(shown), 32, 4, 4)), "b": np.zeros((len(shown), 32, 4, 4))}  # noqa: E731
    encoders = [
        Candidate("pytorch-fp32", "PyTorch FP32", whole.encoder_original, original=True),
        Candidate("fake-quant", "PyTorch fake-quant", family_of(whole.encoder).original(whole.encoder)),
        Candidate("zeros", "Zeros", zeros),
        Candidate("elsewhere", "Elsewhere", None, not_run="no GPU"),
    ]
    shown = images.take(2)
    first, same, other, absent = whole.candidates(encoders)
    expected = whole.model(shown)
    assert torch.equal(first.run(shown), expected)  # type: ignore[operator, misc]
    assert torch.equal(same.run(shown), expected)  # type: ignore[operator, misc]
    assert not torch.equal(other.run(shown), expected)  # type: ignore[operator, misc]
    assert absent.run is None
    assert reads_directly(whole, images)


def test_what_the_encoder_gets_is_a_source_of_its_own() -> None:
    whole, images = Whole.of(detector(), "backbone"), as_source(pixels())
    shown = whole.encoder_images(images)
    assert (shown.count, shown.labelled, shown.skipped) == (8, False, ())
    assert shown.description == images.description
    assert [tuple(batch.images.shape) for batch in shown.batches(5)] == [(5, 3, 32, 32), (3, 3, 32, 32)]
    assert not reads_directly(whole, images)  # torchvision normalises
    (note,) = whole.note("model.onnx", ["a", "b"], False)
    assert "'backbone.body' (FeatureListNet)" in note
    assert "with the outputs a, b; it reads what the model makes of images" in note


@pytest.fixture
def own_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The models of the fixtures, as a module of the user's own."""
    shutil.copy(Path(__file__).parents[1] / "fixtures" / "detectors.py", tmp_path / "own_detectors.py")
    monkeypatch.chdir(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "place", "direct", "kind"),
    [("detector", "backbone.body", False, "detection"), ("segmenter", "encoder", True, "dense")],
)
def test_a_build(name: str, place: str, direct: bool, kind: str, own_models: None, tmp_path: Path) -> None:
    options: dict[str, Any] = {"recipe": "w8a8", "settings": QUICK, "targets": ["onnxruntime-cpu", "openvino-cpu"]}
    result = fd.build(f"own_detectors:{name}", images=pixels(), eval_images=pixels(4), out="built", **options)
    assert result is not None
    assert result.failures == ()
    report = result.report
    assert [one.task for one in report.outputs] == [kind]
    assert any(f"the encoder '{place}'" in note for note in report.data.notes)
    assert all(row.not_run is None for row in report.rows)
    assert all(parity.first_parting is None for parity in report.parity)
    assert fd.verify_artifact("built").good
    assert not fd.parity("built").partings
    contract = open_artifact("built").contract
    assert (contract.part, contract.direct, len(contract.outputs)) == (place, direct, 2)
    if direct:
        found = Predictor("built").outputs(np.zeros((32, 32, 3), np.uint8))
        assert list(found) == ["blocks_0", "blocks_1"]
    else:
        with pytest.raises(UserError, match=r"is the encoder 'backbone.body' of a model, which prepares its images"):
            Predictor("built")
    # The runtime's glue: the engine in the place of the encoder of the user's own model.
    model = detector() if name == "detector" else segmenter()
    with torch.no_grad():
        whole = fd.splice(model, fd.load_engine("built/model.onnx"))
        assert len(whole(torch.from_numpy(pixels(2)))) == 2


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "asked"),
    [
        ("detector", {"size_budget": 0.2, "divergence": "detections"}),
        ("detector", {"size_budget": 0.2, "backbone": "backbone.body"}),
        ("segmenter", {"speed_budget": 1.2, "gpu": "L4", "targets": ["onnxruntime-cpu", "tensorrt-rtx"]}),
    ],
)
def test_an_encoder_inside_gets_its_formats_from_a_budget(
    name: str, asked: dict[str, Any], own_models: None, tmp_path: Path
) -> None:
    options: dict[str, Any] = {"recipe": "auto", "settings": QUICK, "targets": "onnxruntime-cpu", **asked}
    result = fd.build(f"own_detectors:{name}", images=pixels(), eval_images=pixels(4), out="built", **options)
    assert result is not None and result.report.mix is not None
    mix = result.report.mix
    assert all(not layer.startswith("backbone") for layer in mix.formats), "names of the encoder's layers"
    assert len(set(mix.formats.values())) == 2
    if "size_budget" in asked:
        assert (tmp_path / "built" / "model.onnx").stat().st_size <= 1e6 * mix.chosen.megabytes <= 2e5


def test_what_has_no_encoder_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_nets.py").write_text("import torch\n\n\ndef net():\n    return torch.nn.Linear(2, 2)\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="own_nets:net is a Linear: expected a"):
        fd.build("own_nets:net", images=pixels())
