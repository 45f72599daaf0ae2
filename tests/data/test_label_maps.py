from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fixtures import coco
from PIL import Image

from fimaq_deploy.data.label_maps import mapped_images
from fimaq_deploy.errors import UserError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    coco.write(tmp_path)
    return tmp_path


def test_maps_are_read_beside_their_images(tmp_path: Path) -> None:
    found = coco.write(tmp_path)
    source = mapped_images(tmp_path / "images", tmp_path / "maps", coco.info())
    (batch,) = source.batches()
    assert batch.labels is not None
    assert np.array_equal(batch.labels.numpy(), found.maps())
    assert np.allclose(batch.images.numpy(), found.images / 127.5 - 1, atol=1e-6)
    small = next(mapped_images(tmp_path / "images", tmp_path / "maps", coco.info((48, 24))).batches()).labels
    assert small is not None and tuple(small.shape) == (3, 48, 24)
    assert set(small.unique().tolist()) <= set(batch.labels.unique().tolist())


def test_a_palette_is_only_how_a_map_is_shown(folder: Path) -> None:
    path = folder / "maps" / "001.png"
    values = np.asarray(Image.open(path))
    shown = Image.fromarray(values).convert("P")
    shown.putdata(values.reshape(-1).tolist())
    shown.putpalette(np.random.default_rng(0).integers(0, 255, 768).tolist())
    shown.save(path)
    labels = next(mapped_images(folder / "images", folder / "maps", coco.info()).batches()).labels
    assert labels is not None and np.array_equal(labels[1].numpy(), values)


@pytest.mark.parametrize("crop_mode", ["center", "border", "squash"])
def test_a_map_goes_where_its_image_goes(folder: Path, crop_mode: str) -> None:
    """Of a wide image: its middle, all of it with nobody's pixels above and below, or all of it out of proportion."""
    for name in ("images", "maps"):
        shown = np.asarray(Image.open(folder / name / "000.png"))
        Image.fromarray(shown[:48]).save(folder / name / "000.png")
    half = np.asarray(Image.open(folder / "maps" / "000.png"))
    info = replace(coco.info((48, 48)), crop_mode=crop_mode)
    labels = next(mapped_images(folder / "images", folder / "maps", info).batches()).labels
    assert labels is not None
    found = labels[0].numpy()
    expected = {
        "center": lambda: half[:, 24:72],
        "border": lambda: np.full((48, 48), 255),
        "squash": lambda: np.asarray(Image.fromarray(half).resize((48, 48), Image.Resampling.NEAREST)),
    }[crop_mode]().astype(np.int64)
    if crop_mode == "border":
        expected[12:36] = np.asarray(Image.fromarray(half).resize((48, 24), Image.Resampling.NEAREST))
    assert np.array_equal(found, expected)


def test_a_map_more_is_told(folder: Path) -> None:
    (folder / "images" / "002.png").unlink()
    source = mapped_images(folder / "images", folder / "maps", coco.info())
    assert source.count == 2
    assert "1 maps" in source.notes[0]


def test_what_does_not_match_is_refused(folder: Path) -> None:
    images, maps, path = folder / "images", folder / "maps", folder / "maps" / "000.png"
    with pytest.raises(UserError, match="no folder"):
        mapped_images(images, folder / "nowhere", coco.info())
    Image.new("RGB", (96, 96)).save(path)
    with pytest.raises(UserError, match="of mode RGB: expected one channel"):
        mapped_images(images, maps, coco.info())
    Image.new("L", (50, 96)).save(path)
    with pytest.raises(UserError, match="has 50×96 pixels, its image 96×96"):
        mapped_images(images, maps, coco.info())
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(UserError, match="cannot be read"):
        mapped_images(images, maps, coco.info())
    path.unlink()
    with pytest.raises(UserError, match=r"1 of the 3 images .* \(first 000\)"):
        mapped_images(images, maps, coco.info())
