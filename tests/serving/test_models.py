from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fixtures.artifacts import add_head, write_facts

from fimaq_deploy.contract import Output, read_contract
from fimaq_deploy.errors import UserError
from fimaq_deploy.export.pixels import embed_preprocessing
from fimaq_deploy.manifest import read_manifest
from fimaq_deploy.runtime.preprocessing import Place
from fimaq_deploy.serving.limits import Limits
from fimaq_deploy.serving.metrics import Metrics
from fimaq_deploy.serving.models import Served, open_models

PLACE = Place((8, 8), (1.0, 1.0), (0.0, 0.0))


def opened(*artifacts: object, **options: object) -> dict[str, Served]:
    return open_models([str(one) for one in artifacts], Metrics(), Limits(), target="onnxruntime-cpu", **options)  # type: ignore[arg-type]


def test_models_are_called_by_their_own_or_a_given_name(artifact: Path) -> None:
    assert list(opened(artifact, f"other={artifact}", f"third={artifact / 'model.onnx'}")) == ["tiny", "other", "third"]


def test_two_of_one_name_and_odd_names_are_refused(artifact: Path) -> None:
    with pytest.raises(UserError, match="two builds are called tiny"):
        opened(artifact, artifact)
    for name in ("a/b", "..", "a b", "x" * 101):
        with pytest.raises(UserError, match="model name"):
            opened(f"{name}={artifact}")


def test_a_models_own_name_becomes_one_that_an_address_holds(artifact: Path) -> None:
    contract = read_contract((read_manifest(artifact) or {})["contract"], "")
    write_facts(artifact, contract, model="../hf-hub:me/my model")
    assert list(opened(artifact)) == ["hf-hub_me_my_model"]


def test_the_original_is_loaded_where_it_is_asked_for_and_there(artifact: Path) -> None:
    assert opened(artifact)["tiny"].original is None
    assert opened(artifact, original=True)["tiny"].original is not None


def test_outputs_without_classes_are_told_by_their_shapes(artifact: Path) -> None:
    contract = read_contract((read_manifest(artifact) or {})["contract"], "")
    write_facts(artifact, replace(contract, outputs=(Output("logits", "float32", (10,), "embedding"),)))
    answer = opened(artifact)["tiny"].answer({"logits": np.zeros((1, 10), np.float32)}, PLACE)
    assert answer == {"outputs": {"logits": [10]}}


def test_what_stands_behind_an_encoder_is_loaded_with_it(artifact: Path) -> None:
    add_head(artifact, "detection")
    served = opened(artifact)["tiny"]
    assert served.head is not None and [one.name for one in served.contract.outputs] == ["boxes", "scores", "labels"]
    told = served.metadata()
    assert told["inputs"][0]["shape"] == [1, 3, 8, 8]
    assert told["outputs"][0] == {"name": "boxes", "datatype": "FP32", "shape": [-1, 4]}


def test_a_head_that_is_not_what_was_built_is_refused(artifact: Path) -> None:
    add_head(artifact, "detection")
    with (artifact / "head.onnx").open("ab") as file:
        file.write(b"!")
    with pytest.raises(UserError, match=r"head\.onnx has"):
        opened(artifact)


def test_an_encoder_that_reads_no_images_is_refused(artifact: Path) -> None:
    contract = read_contract((read_manifest(artifact) or {})["contract"], "")
    write_facts(artifact, replace(contract, part="body", direct=False))
    with pytest.raises(UserError, match="put its engine into that model"):
        opened(artifact)


def test_a_file_that_takes_images_of_any_size_is_refused(artifact: Path, tmp_path: Path) -> None:
    file = embed_preprocessing(artifact / "model.onnx", tmp_path / "images.onnx", resize=True)
    with pytest.raises(UserError, match="resizes images itself, one at a time"):
        opened(file)
