from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fixtures.artifacts import INFO, NAMES, write_facts
from PIL import Image

from fimaq_deploy.contract import Output, read_contract
from fimaq_deploy.data.prepare import Preparation
from fimaq_deploy.engines.load import load_engine
from fimaq_deploy.errors import UserError
from fimaq_deploy.manifest import read_manifest
from fimaq_deploy.runtime.predictor import Classifier, Encoder, Predictor, ranked, softmax

FORBIDDEN = ["torch", "torchvision", "timm", "onnx", "onnx_ir", "onnxscript", "safetensors", "yaml", "matplotlib"]


def with_kind(artifact: Path, kind: str) -> Path:
    contract = read_contract((read_manifest(artifact) or {})["contract"], "")
    write_facts(artifact, replace(contract, outputs=(Output("logits", "float32", (10,), kind),)))
    return artifact


def test_classes_are_those_of_the_builders_images_in_the_engine(artifact: Path, photographs: Any) -> None:
    files = photographs(5)
    prepare, engine = Preparation(INFO), load_engine(artifact / "model.onnx")
    logits = engine(np.stack([prepare.read(file).numpy() for file in files]))
    found = Classifier(artifact, batch=2).predict_all(files)
    assert [one.label for one in found] == logits.argmax(axis=1).tolist()
    assert [one.name for one in found] == [NAMES[number] for number in logits.argmax(axis=1)]
    assert [one.probability for one in found] == pytest.approx(softmax(logits).max(axis=1))


def test_an_image_of_any_kind_is_the_same_image(artifact: Path, photographs: Any) -> None:
    (file,) = photographs(1)
    classifier = Classifier(artifact)
    with Image.open(file) as image:
        kinds = [file, str(file), image.copy(), np.asarray(image)]
    assert len({classifier.predict(one) for one in kinds}) == 1
    assert {one.shape for one in (classifier.outputs(kind)["logits"] for kind in kinds)} == {(1, 10)}


def test_a_file_alone_has_its_contract_inside(artifact: Path, tmp_path: Path, photographs: Any) -> None:
    alone = tmp_path / "alone.onnx"
    alone.write_bytes((artifact / "model.onnx").read_bytes())
    files = photographs(2)
    assert Classifier(alone).predict_all(files) == Classifier(artifact).predict_all(files)


def test_batches_do_not_change_an_answer(artifact: Path, photographs: Any) -> None:
    files = photographs(7)
    one, many = (Predictor(artifact, batch=size).outputs(files)["logits"] for size in (1, 7))
    assert one.shape == (7, 10) and np.allclose(one, many, atol=1e-5)


def test_an_encoder_gives_vectors_of_length_one(artifact: Path, photographs: Any) -> None:
    encoder = Encoder(with_kind(artifact, "embedding"))
    found = encoder.encode(photographs(3))
    assert found.shape == (3, 10) and np.allclose(np.linalg.norm(found, axis=1), 1)
    assert not np.allclose(np.linalg.norm(encoder.encode(photographs(3), normalise=False), axis=1), 1)


def test_a_model_of_another_kind_is_refused(artifact: Path) -> None:
    with pytest.raises(UserError, match=r"returns logits \(classes\): expected an embedding"):
        Encoder(artifact)
    with pytest.raises(UserError, match=r"returns logits \(regression\): expected classes"):
        Classifier(with_kind(artifact, "regression"))


def test_it_warms_up_and_says_what_runs(artifact: Path) -> None:
    predictor = Predictor(artifact, threads=1)
    predictor.warm_up((1, 4))
    (note,) = predictor.notes
    assert note.startswith("ONNX Runtime CPU runs model.onnx: the fastest here by the build's report, 0.25 ms")
    assert repr(predictor) == "Predictor(tiny, onnxruntime-cpu)"


@pytest.mark.parametrize("images", [[], iter(())])
def test_no_images_are_refused(artifact: Path, images: Any) -> None:
    with pytest.raises(UserError, match="no images"):
        Predictor(artifact).outputs(images)


def test_equal_logits_keep_their_order_and_top_has_limits() -> None:
    contract = replace(INFO.contract(), classes=())
    (one,) = ranked(contract, np.zeros((1, 4), np.float32), top=9)
    assert one.top == tuple((number, str(number), 0.25) for number in range(4))
    with pytest.raises(UserError, match="top"):
        ranked(contract, np.zeros((1, 4), np.float32), top=0)
    with pytest.raises(UserError, match="expected logits"):
        ranked(contract, np.zeros((1, 4, 4), np.float32))


def test_softmax_of_large_logits_is_finite() -> None:
    assert softmax(np.array([[1e30, 0.0]], np.float32)).tolist() == [[1.0, 0.0]]


@pytest.mark.parametrize("command", [None, "predict", "verify"])
def test_it_runs_without_the_builders_packages(command: str | None, artifact: Path, photographs: Any) -> None:
    """In a process in which they cannot be imported at all. Of the commands, typer itself may need pydantic."""
    (file,) = photographs(1)
    names = [*FORBIDDEN, *(["pydantic", "typer", "rich"] if command is None else [])]
    barred = f"import sys\nfor name in {names}: sys.modules[name] = None\n"
    if command is None:
        code = f"from fimaq_deploy import Classifier; print(Classifier({str(artifact)!r}).predict({str(file)!r}).name)"
    else:
        words = [command, str(artifact), *([str(file)] if command == "predict" else ["--target", "onnxruntime-cpu"])]
        code = f"from fimaq_deploy.cli import main; main({words!r})"
    done = subprocess.run([sys.executable, "-c", barred + code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert ("class " if command != "verify" else "yes: it is what was built") in done.stdout
