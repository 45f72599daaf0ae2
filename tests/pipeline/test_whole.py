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
from fimaq_deploy.pipeline.normalisation import Normalisation
from fimaq_deploy.pipeline.rows import Candidate
from fimaq_deploy.pipeline.whole import Whole, how_read
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
    reads = how_read(whole, images)
    assert isinstance(reads, Normalisation) and reads.changes_nothing


def test_what_the_encoder_gets_is_a_source_of_its_own() -> None:
    whole, images = Whole.of(detector(), "backbone"), as_source(pixels())
    shown = whole.encoder_images(images)
    assert (shown.count, shown.labelled, shown.skipped) == (8, False, ())
    assert shown.description == images.description
    assert [tuple(batch.images.shape) for batch in shown.batches(5)] == [(5, 3, 32, 32), (3, 3, 32, 32)]
    assert how_read(whole, images) == Normalisation((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))  # torchvision's
    (note,) = whole.note("model.onnx", ["a", "b"], False)
    assert "'backbone.body' (FeatureListNet)" in note
    assert "with the outputs a, b; it reads what the model makes of images" in note


def test_why_no_file_can_read_images_is_one_line() -> None:
    """Where the model resizes them, or does anything else."""
    model: Any = detector()
    whole = Whole.of(model, "backbone")
    assert how_read(whole, as_source(np.random.default_rng(0).random((1, 3, 40, 40), np.float32))) == (
        "the model makes 32×32 of images of 40×40 before its encoder: --image-size 32x32 leaves it nothing to resize, "
        "where it has that size itself"
    )
    model.transform.min_size, model.transform.max_size = (24,), 30
    assert how_read(whole, as_source(pixels())) == (
        "the model changes images of 32×32 before its encoder by more than a mean and a std of each channel: "
        "torchvision's fixed_size=(32, 32) keeps its transform from resizing them"
    )
    model.transform.fixed_size = (32, 32)
    assert isinstance(how_read(whole, as_source(pixels())), Normalisation)
    told = how_read(Whole.of(Squaring().eval()), as_source(pixels()))
    assert told == "the model changes images of 32×32 before its encoder by more than a mean and a std of each channel"


class Squaring(nn.Module):
    """Reads squares of pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = segmenter()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.inner(images.square())


@pytest.fixture
def own_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The models of the fixtures, as a module of the user's own."""
    shutil.copy(Path(__file__).parents[1] / "fixtures" / "detectors.py", tmp_path / "own_detectors.py")
    monkeypatch.chdir(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "place", "kind"), [("detector", "backbone.body", "detection"), ("segmenter", "encoder", "dense")]
)
def test_a_build(name: str, place: str, kind: str, own_models: None, tmp_path: Path) -> None:
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
    assert (contract.part, contract.direct, len(contract.outputs)) == (place, True, 2)
    assert len(Predictor("built").outputs(np.zeros((32, 32, 3), np.uint8))) == 2
    # The runtime's glue: the engine in the place of the encoder of the user's own model.
    model = detector().eval() if name == "detector" else segmenter()
    image = np.random.default_rng(1).integers(0, 256, (32, 32, 3), np.uint8)
    shown = torch.from_numpy(image).permute(2, 0, 1)[None] / 255
    with torch.no_grad():
        whole = fd.splice(model, fd.load_engine("built/model.onnx"))
        assert len(whole(torch.from_numpy(pixels(2)))) == 2
        if name == "detector":  # without torch, from an image to the same objects
            (expected,) = whole(shown)
            found = fd.Detector("built").predict(image, score=0.0)
            assert [one.label for one in found] == expected["labels"].tolist()
            assert np.allclose([one.box for one in found], expected["boxes"].numpy(), atol=1e-2)


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
        written = (tmp_path / "built" / "model.onnx").read_bytes()
        assert len(written) <= 2e5 and abs(len(written) - 1e6 * mix.chosen.megabytes) < 300
        same = {key: value for key, value in asked.items() if key != "size_budget"}
        common = {"images": pixels(), "eval_images": pixels(4), "targets": "onnxruntime-cpu", "replay": 0}
        fd.build(f"own_detectors:{name}", recipe="built/recipe.yaml", out="again", **common, **same)
        assert (tmp_path / "again" / "model.onnx").read_bytes() == written, "what was chosen makes the same file"


def test_what_has_no_encoder_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_nets.py").write_text("import torch\n\n\ndef net():\n    return torch.nn.Linear(2, 2)\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="own_nets:net is a Linear: expected a"):
        fd.build("own_nets:net", images=pixels())
