"""A bank's folders name the classes of the images to measure on, for an encoder has none."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from fixtures import coco

from fimaq_deploy.data.banks import bank_source, classes_of
from fimaq_deploy.data.choose import evaluation_source
from fimaq_deploy.errors import UserError
from fimaq_deploy.models.describe import ModelInfo


@pytest.fixture
def encoder(colour: ModelInfo) -> ModelInfo:
    return replace(colour, classes=0, class_names=())


def test_sub_folders_are_classes_also_of_an_encoder(classes: Path, encoder: ModelInfo) -> None:
    bank = bank_source(classes, encoder)
    assert bank.labelled
    said, names = classes_of(classes, encoder)
    assert isinstance(names, dict)
    assert (said.classes, sorted(names.values())) == (len(names), list(range(len(names))))
    (classes / "aaa").mkdir()  # would shift every rank
    shown = evaluation_source("vit_t", said, bank, images=classes, own_calibration=True, class_map=names)
    labels = {int(one) for batch in shown.batches() if batch.labels is not None for one in batch.labels}
    assert labels == set(names.values())


def test_a_class_map_says_which(classes: Path, encoder: ModelInfo, tmp_path: Path) -> None:
    first = min(path.name for path in classes.iterdir())
    (tmp_path / "map.json").write_text(f'{{"{first}": 7}}')
    said, names = classes_of(classes, encoder, tmp_path / "map.json")
    assert (said.classes, names) == (8, {first: 7})


def test_arrays_bring_their_labels(encoder: ModelInfo) -> None:
    images = torch.zeros(2, *encoder.input_shape)
    assert bank_source((images, torch.tensor([0, 1])), encoder).labelled
    assert classes_of((images, torch.tensor([0, 1])), encoder, "map.txt") == (encoder, "map.txt")


def test_maps_lie_beside_a_folder(tmp_path: Path) -> None:
    coco.write(tmp_path)
    found = bank_source(str(tmp_path / "images"), coco.info(), maps=tmp_path / "maps")
    labels = next(iter(found.batches(1))).labels
    assert labels is not None and labels.ndim == 3
    with pytest.raises(UserError, match="--bank-maps needs the folder of its images"):
        bank_source(torch.zeros(1, 3, 96, 96), coco.info(), maps=tmp_path / "maps")
