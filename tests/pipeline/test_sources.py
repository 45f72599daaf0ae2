"""The images to measure on have the classes of the bank, whatever the model says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fimaq_deploy.data.memory import Arrays
from fimaq_deploy.data.pixels import Pixels
from fimaq_deploy.errors import UserError
from fimaq_deploy.models.describe import ModelInfo
from fimaq_deploy.pipeline.request import Request
from fimaq_deploy.pipeline.sources import evaluation_and_bank

ENCODER = ModelInfo("encoder", (3, 8, 8), (0.5,) * 3, (0.5,) * 3, "bilinear", 1.0, "center", 0)


def folder(root: Path, *names: str) -> Path:
    for number, name in enumerate(names):
        (root / name).mkdir(parents=True)
        Image.new("RGB", (8, 8), (20 * number,) * 3).save(root / name / "image.png")
    return root


def test_classes_are_the_banks(tmp_path: Path) -> None:
    bank, shown = folder(tmp_path / "bank", "ant", "bee", "cat"), folder(tmp_path / "shown", "cat", "dog")
    request = Request.of(
        "vit_digits", targets="onnxruntime-cpu", device="cpu", bank=bank, eval_images=shown, images=bank
    )
    evaluation, found = evaluation_and_bank(request, ENCODER, Arrays(np.zeros((1, 3, 8, 8)), None, Pixels()))
    assert found is not None and found.count == 3
    (batch,) = evaluation.batches()
    assert batch.labels is not None and batch.labels.tolist() == [2]
    assert any("1 (first dog)" in note for note in evaluation.notes)


def test_without_a_bank_nothing_is_said_of_classes(tmp_path: Path) -> None:
    shown = folder(tmp_path, "ant", "bee")
    request = Request.of("vit_digits", targets="onnxruntime-cpu", device="cpu", eval_images=shown, images=shown)
    evaluation, found = evaluation_and_bank(request, ENCODER, Arrays(np.zeros((1, 3, 8, 8)), None, Pixels()))
    assert found is None and not evaluation.labelled


def test_maps_alone_are_no_bank(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--bank-maps are maps of the images in --bank: name their folder too"):
        Request.of("vit_digits", bank_maps=tmp_path)
