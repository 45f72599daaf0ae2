from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fixtures.artifacts import write_facts

from fimaq_deploy.contract import Output, read_contract
from fimaq_deploy.errors import UserError
from fimaq_deploy.manifest import read_manifest
from fimaq_deploy.runtime.answers import predict
from fimaq_deploy.runtime.predictor import Classifier


def test_classes_come_in_the_order_of_the_images(artifact: Path, photographs: Any) -> None:
    files = photographs(3)
    found = predict(artifact, files, top=2)
    assert [one.prediction for one in found.answers] == Classifier(artifact).predict_all(files, top=2)
    document = json.loads(json.dumps(found.document()))
    assert [one["image"] for one in document["images"]] == [str(file) for file in files]
    assert len(document["images"][0]["top"]) == 2 and document["engine"]["target"] == "onnxruntime-cpu"


def test_a_folder_stands_for_the_images_in_it(artifact: Path, photographs: Any) -> None:
    files = photographs(3)
    assert predict(artifact, files[0].parent).document() == predict(artifact, files).document()
    with pytest.raises(UserError, match="no image in"):
        predict(artifact, artifact)


def test_a_score_is_of_detectors_alone(artifact: Path, photographs: Any) -> None:
    with pytest.raises(UserError, match=r"score 0\.3: .* is no detector"):
        predict(artifact, photographs(1), score=0.3)


def test_a_model_without_classes_gives_its_outputs(artifact: Path, photographs: Any) -> None:
    contract = read_contract((read_manifest(artifact) or {})["contract"], "")
    write_facts(artifact, replace(contract, outputs=(Output("logits", "float32", (10,), "embedding"),)))
    (one,) = predict(artifact, photographs(1)).document()["images"]
    assert len(one["outputs"]["logits"]) == 10
