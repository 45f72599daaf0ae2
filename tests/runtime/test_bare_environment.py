"""An environment of the extra `runtime`, and the shipped models as their builder runs them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

import fimaq_deploy
from fimaq_deploy.data.bundled import bundled_images, shipped_images
from fimaq_deploy.data.objects import labels_of, pack_objects, scores_of
from fimaq_deploy.models.bundled import BUNDLED, INSIDE

ROOT = Path(fimaq_deploy.__file__).parent.parent
ALONE = "import sys; print([name for name in ('torch', 'timm', 'onnx', 'pydantic', 'typer') if name in sys.modules])"
COUNT = 64


def run(python: Path, code: str, *arguments: object) -> str:
    command = [str(python), "-c", code, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=python.parent)
    assert done.returncode == 0, done.stderr
    return done.stdout


def save_pixels(images: NDArray[np.float32], folder: Path) -> None:
    """Images in [-1, 1], which were pixels, as files in their order."""
    folder.mkdir()
    for number, image in enumerate(np.rint((image + 1) * 127.5).astype(np.uint8) for image in images):
        pixels = image[0] if len(image) == 1 else image.transpose(1, 2, 0)
        Image.fromarray(pixels).save(folder / f"{number:03}.png")


@pytest.fixture(scope="session")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bare") / "venv"
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    pip = [folder / "bin" / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, f"{ROOT}[runtime]"], check=True)
    return folder / "bin" / "python"


PREDICT = """
import json, sys
from pathlib import Path
from fimaq_deploy import Classifier
classifier = Classifier(sys.argv[1], target="onnxruntime-cpu")
files = sorted(Path(sys.argv[2]).iterdir())
print(json.dumps([one.label for one in classifier.predict_all(files)]))
"""


@pytest.mark.slow
@pytest.mark.parametrize("name", BUNDLED)
def test_the_answers_are_the_builders(name: str, python: Path, tmp_path: Path, quick_recipe: Any) -> None:
    from fimaq_deploy import build, load_engine

    out = tmp_path / name
    build(name, recipe=quick_recipe(reconstruction={"iterations": 0}), targets="onnxruntime-cpu", out=out)
    images = bundled_images(BUNDLED[name].task, "test", COUNT).take(COUNT).numpy()
    save_pixels(images, tmp_path / "images")
    answers = json.loads(run(python, PREDICT, out, tmp_path / "images"))
    assert answers == load_engine(out / "model.onnx")(images).argmax(axis=1).tolist()


OBJECTS = """
import json, sys
from pathlib import Path
from fimaq_deploy import Detector
files = sorted(Path(sys.argv[2]).iterdir())
answers = Detector(sys.argv[1], target="onnxruntime-cpu").predict_all(files, score=0.1)
print(json.dumps([[[*one.box, one.score, one.label] for one in answer] for answer in answers]))
"""
MAPS = """
import sys
from pathlib import Path
import numpy as np
from fimaq_deploy import Segmenter
segmenter = Segmenter(sys.argv[1], target="onnxruntime-cpu")
maps = [segmenter.predict(file).labels for file in sorted(Path(sys.argv[2]).iterdir())]
np.save(sys.argv[3], np.stack(maps))
"""


@pytest.mark.slow
@pytest.mark.parametrize("name", INSIDE)
def test_what_detectors_and_segmenters_find_is_what_pytorch_finds_around_the_same_file(
    name: str, python: Path, tmp_path: Path, quick_recipe: Any
) -> None:
    import torch

    from fimaq_deploy import build, load_engine, load_model
    from fimaq_deploy.pipeline.whole import Whole

    if name == "detr_shapes":
        pytest.importorskip("transformers")
    out, images = tmp_path / name, shipped_images(name, "test", 12).take(12)
    settings = {"reconstruction": {"iterations": 0}, "scale_search": {"images": 8, "candidates": 4}}
    build(name, images=shipped_images(name, "calibration", 8), recipe=quick_recipe(**settings),
          targets="onnxruntime-cpu", eval_images=images, out=out)  # fmt: skip
    save_pixels(images.numpy(), tmp_path / "images")
    whole = Whole.of(load_model(name)).around(load_engine(out / "model.onnx"))
    with torch.no_grad():
        there = [whole(image) for image in images.split(1)]
    if INSIDE[name].task == "maps":
        run(python, MAPS, out, tmp_path / "images", tmp_path / "maps.npy")
        assert (np.load(tmp_path / "maps.npy") == np.concatenate(there).argmax(1)).mean() > 0.999
        return
    here = json.loads(run(python, OBJECTS, out, tmp_path / "images"))
    assert sum(map(len, here)) >= 12
    for own, found in zip(here, there, strict=True):
        (objects,) = pack_objects({name: one.numpy() for name, one in found.items() if name != "masks"})
        kept = objects[(scores_of(objects) >= 0.1) & (labels_of(objects) >= 0)]
        kept = kept[np.argsort(-scores_of(kept), kind="stable")]
        kept[:, :4] = kept[:, :4].clip(0, images.shape[-1])  # a runtime's boxes lie in the image
        assert np.allclose(np.array(own).reshape(-1, 6), kept, atol=0.01)


@pytest.mark.slow
def test_commands_run_or_say_what_to_install(python: Path, artifact: Path) -> None:
    def command(*arguments: object) -> subprocess.CompletedProcess[str]:
        program = [str(python.parent / "fimaq-deploy"), *map(str, arguments)]
        return subprocess.run(program, capture_output=True, text=True, cwd=python.parent)

    assert command("verify", artifact).returncode == 0
    doctor = command("doctor", "--json", "-")
    assert doctor.returncode == 0 and "onnxruntime-cpu" in doctor.stdout
    for words in (("build", "--model", "vit_digits", "--out", artifact / "new"), ("recipes",), ("parity", artifact)):
        refused = command(*words)
        assert refused.returncode == 2 and "pip install 'fimaq-deploy[build]'" in refused.stderr, refused.stderr
        assert refused.stderr.count("\n") == 1


@pytest.mark.slow
def test_nothing_else_is_imported(python: Path, artifact: Path) -> None:
    loaded = run(python, f"import sys\nfrom fimaq_deploy import Classifier\nClassifier(sys.argv[1])\n{ALONE}", artifact)
    assert loaded.strip() == "[]"
    verify = (
        "import sys\nfrom fimaq_deploy import verify_artifact\nprint(verify_artifact(sys.argv[1], time=False).good)"
    )
    assert run(python, verify, artifact).strip() == "True"
