from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from fixtures.artifacts import write_facts

from fimaq_deploy.contract import read_contract
from fimaq_deploy.errors import UserError
from fimaq_deploy.manifest import read_manifest
from fimaq_deploy.pipeline import pixels
from fimaq_deploy.pipeline.pixels import IMAGES_ONNX, PIXELS_ONNX, write_images, write_pixels
from fimaq_deploy.runtime.onnx_metadata import contract_in
from fimaq_deploy.runtime.verification import verify_artifact


def test_it_stands_beside_and_says_that_it_was_checked(artifact: Path) -> None:
    note = write_pixels(artifact / "model.onnx")
    assert "are those of model.onnx, in every bit" in note
    found = contract_in(artifact / PIXELS_ONNX)
    assert found is not None and found.pixels


def test_a_file_that_computes_something_else_is_refused(artifact: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pixels, "draw_picture", lambda *_: np.random.randint(0, 256, (20, 30, 3)).astype(np.uint8))
    with pytest.raises(UserError, match="differ by"):
        write_pixels(artifact / "model.onnx")


def test_the_file_that_resizes_says_how_exact_it_is(artifact: Path) -> None:
    contract = read_contract((read_manifest(artifact) or {})["contract"], "")
    note = write_images(artifact / "model.onnx")
    assert note.startswith(f"{IMAGES_ONNX} takes images of any size, for onnxruntime-cpu") and "of 255" in note
    found = contract_in(artifact / IMAGES_ONNX)
    assert found is not None and found.resizing is not None and found.resizing.levels in (0, 1)
    write_facts(artifact, contract)
    assert verify_artifact(artifact, targets=["onnxruntime-cpu"], time=False).good


def test_where_it_cannot_be_the_note_says_why(artifact: Path) -> None:
    contract = contract_in(artifact / "model.onnx")
    assert contract is not None
    model = onnx.load(artifact / "model.onnx")
    model.metadata_props[0].value = replace(contract, interpolation="lanczos").text()
    onnx.save(model, artifact.parent / "other.onnx")
    assert "there is no model.images.onnx" in write_images(artifact.parent / "other.onnx")
    assert not (artifact.parent / IMAGES_ONNX).exists()
