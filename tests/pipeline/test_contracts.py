from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from fimaq_deploy.data.folder import folder_images
from fimaq_deploy.measure.tasks.classes import CLASSES
from fimaq_deploy.models.describe import ModelInfo
from fimaq_deploy.pipeline.contracts import contract_for
from fimaq_deploy.pipeline.measures import Measures
from fimaq_deploy.pipeline.request import Request

MEASURES = Measures({"output": CLASSES})


def request_of(**options: object) -> Request:
    return Request.of("vit_digits", targets="onnxruntime-cpu", **options)  # type: ignore[arg-type]


@pytest.fixture
def two(colour: ModelInfo) -> ModelInfo:
    return replace(colour, classes=2)


def test_class_folders_name_the_classes(classes: Path, two: ModelInfo) -> None:
    images = folder_images(classes, two, labelled=True)
    found = contract_for(request_of(eval_images=str(classes)), two, images, MEASURES)
    assert found.classes == ("a", "b")
    assert [one.kind for one in found.outputs] == ["classes"]


def test_the_models_own_names_come_first(classes: Path, two: ModelInfo) -> None:
    named = replace(two, class_names=("cat", "dog"))
    images = folder_images(classes, two, labelled=True)
    assert contract_for(request_of(), named, images, MEASURES).classes == ("cat", "dog")


def test_a_class_map_names_them_where_it_names_all(classes: Path, two: ModelInfo, tmp_path: Path) -> None:
    file = tmp_path / "map.txt"
    file.write_text("b\na\n")
    images = folder_images(classes, two, labelled=True, class_map=str(file))
    asked = request_of(eval_images=str(classes), class_map=str(file))
    assert contract_for(asked, two, images, MEASURES).classes == ("b", "a")
    assert contract_for(asked, replace(two, classes=3), images, MEASURES).classes == ()


def test_nobody_names_them(classes: Path, colour: ModelInfo, save: Callable[..., None], tmp_path: Path) -> None:
    save(tmp_path / "flat" / "1.png", 7)
    flat = folder_images(tmp_path / "flat", colour, labelled=True)
    assert contract_for(request_of(), colour, flat, MEASURES).classes == ()
    assert contract_for(request_of(), colour, folder_images(classes, colour, labelled=True), MEASURES).classes == ()
