"""A detector in one file: ONNX Runtime alone answers what the encoder's file and the head's answer in a row."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from fixtures.artifacts import SCENE, add_head

from fimaq_deploy.errors import UserError
from fimaq_deploy.packaging.packages import package
from fimaq_deploy.runtime.head import load_head
from fimaq_deploy.runtime.objects import Detector, Segmenter
from fimaq_deploy.runtime.onnx_metadata import contract_in


@pytest.mark.parametrize("kind", ["detection", "segmentation"])
def test_one_file_answers_what_two_do(artifact: Path, tmp_path: Path, kind: str) -> None:
    add_head(artifact, kind)
    done = package(artifact, "whole", out=tmp_path / "whole")
    assert sorted(path.name for path in done.out.iterdir()) == ["bom.cdx.json", "labels.txt", "tiny.onnx"]
    assert (done.out / "labels.txt").read_text().splitlines() == list(SCENE)
    onnx.checker.check_model(done.out / "tiny.onnx", full_check=True)
    session = onnxruntime.InferenceSession(done.out / "tiny.onnx", providers=["CPUExecutionProvider"])
    assert session.get_inputs()[0].shape[1:] == [3, 8, 8]
    predictor = (Detector if kind == "detection" else Segmenter)(artifact, target="onnxruntime-cpu")
    for image in np.random.default_rng(5).normal(size=(4, 1, 3, 8, 8)).astype(np.float32):
        (own,) = load_head(predictor.artifact)(predictor.run(image))
        found = session.run(list(own), {"images": image})
        assert all(np.array_equal(array, one) for array, one in zip(found, own.values(), strict=True))


def test_its_contract_is_that_of_a_whole_model(artifact: Path, tmp_path: Path) -> None:
    add_head(artifact, "detection")
    contract = contract_in(package(artifact, "whole", out=tmp_path / "whole").out / "tiny.onnx")
    assert contract is not None and (contract.part, contract.head, contract.classes) == ("", None, SCENE)
    assert [(one.name, one.kind) for one in contract.outputs] == [
        (name, "detection") for name in ("boxes", "scores", "labels")
    ]


def test_what_is_whole_already_is_refused(artifact: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is the whole model already"):
        package(artifact, "whole", out=tmp_path / "whole")
    assert not (tmp_path / "whole").exists()
