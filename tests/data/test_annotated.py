from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from fixtures import coco
from PIL import Image

from fimaq_deploy.data.annotated import Annotated, as_tensor
from fimaq_deploy.data.folder import folder_images
from fimaq_deploy.data.prepare import Preparation
from fimaq_deploy.errors import UserError


def source(folder: Path, count: int) -> Annotated:
    files = [folder / f"{number}.png" for number in range(count)]
    for number, file in enumerate(files):
        Image.fromarray(np.full((20, 30, 3), 10 * number, np.uint8)).save(file)
    return Annotated(files, Preparation(coco.info((8, 8))), lambda n: as_tensor(np.full(4, n)), "images")


def test_labels_go_with_their_images(tmp_path: Path) -> None:
    batches = list(source(tmp_path, 5).batches(2))
    assert [tuple(batch.images.shape) for batch in batches] == [(2, 3, 8, 8), (2, 3, 8, 8), (1, 3, 8, 8)]
    assert torch.equal(
        torch.cat([batch.labels for batch in batches if batch.labels is not None])[:, 0], torch.arange(5)
    )
    assert batches[0].images[1, 0, 0, 0].item() == pytest.approx(10 / 127.5 - 1)


@pytest.mark.parametrize("crop_mode", ["squash", "center", "border"])
def test_annotated_images_are_prepared_as_all_others(tmp_path: Path, crop_mode: str) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 80, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "x.png")
    info = replace(coco.info((8, 8)), crop_mode=crop_mode)
    annotated = Annotated([tmp_path / "x.png"], Preparation(info), lambda n: as_tensor(np.full(4, n)), "images")
    assert torch.equal(annotated.take(1), folder_images(tmp_path, info, labelled=False).take(1))


def test_a_file_that_is_gone_is_named(tmp_path: Path) -> None:
    images = source(tmp_path, 2)
    (tmp_path / "1.png").unlink()
    with pytest.raises(UserError, match=r"1\.png"):
        list(images.batches())
