"""An environment with NumPy, Pillow and ONNX Runtime alone, and the shipped models as their builder runs them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import fimaq_deploy
from fimaq_deploy.data.bundled import bundled_images
from fimaq_deploy.models.bundled import BUNDLED

ROOT = Path(fimaq_deploy.__file__).parent.parent
NEEDED = ("numpy>=2", "pillow>=10", "onnxruntime>=1.22")
ALONE = "import sys; print([name for name in ('torch', 'timm', 'onnx', 'pydantic', 'typer') if name in sys.modules])"
COUNT = 64


def run(python: Path, code: str, *arguments: object) -> str:
    command = [str(python), "-c", code, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=python.parent)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="session")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bare") / "venv"
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    pip = [folder / "bin" / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, *NEEDED], check=True)
    subprocess.run([*pip, "--no-deps", ROOT], check=True)
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
    (tmp_path / "images").mkdir()
    for number, image in enumerate(np.rint((image + 1) * 127.5).astype(np.uint8) for image in images):
        pixels = image[0] if len(image) == 1 else image.transpose(1, 2, 0)
        Image.fromarray(pixels).save(tmp_path / "images" / f"{number:03}.png")
    answers = json.loads(run(python, PREDICT, out, tmp_path / "images"))
    assert answers == load_engine(out / "model.onnx")(images).argmax(axis=1).tolist()


@pytest.mark.slow
def test_nothing_else_is_imported(python: Path, artifact: Path) -> None:
    loaded = run(python, f"import sys\nfrom fimaq_deploy import Classifier\nClassifier(sys.argv[1])\n{ALONE}", artifact)
    assert loaded.strip() == "[]"
    verify = (
        "import sys\nfrom fimaq_deploy import verify_artifact\nprint(verify_artifact(sys.argv[1], time=False).good)"
    )
    assert run(python, verify, artifact).strip() == "True"
