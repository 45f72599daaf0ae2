"""Image files as they come from the field, each alone in a folder: what the model gets of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from fimaq_deploy.data.intake import as_source
from fimaq_deploy.models.describe import ModelInfo

# Nothing is resized or cropped: pixels are compared with what was written.
HEIGHT, WIDTH = 24, 36
INFO = ModelInfo("a model", (3, HEIGHT, WIDTH), (0.0,) * 3, (1.0,) * 3, "bicubic", 1.0, "center", 4)
COLOURS = np.random.default_rng(5).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
# Rising values of 12 bits in a file of 16, left to right and line after line.
RISING = np.linspace(0, 4095, HEIGHT * WIDTH).reshape(HEIGHT, WIDTH).astype(np.uint16)


def read(folder: Path, info: ModelInfo = INFO) -> tuple[np.ndarray[Any, Any], tuple[str, ...]]:
    """The one image of a folder (C, H, W) in [0, 1], and what was said of it."""
    source = as_source(folder, info)
    (image,) = torch.cat([batch.images for batch in source.batches(2)])
    return image.numpy(), tuple(source.notes)


def put(folder: Path, image: Image.Image, name: str = "a.png", **options: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    image.save(folder / name, **options)
    return folder


def expected(image: Image.Image) -> np.ndarray[Any, Any]:
    return np.asarray(image.convert("RGB"), np.float32).transpose(2, 0, 1) / 255


def test_plain_colours(tmp_path: Path) -> None:
    image, notes = read(put(tmp_path, Image.fromarray(COLOURS)))
    assert np.abs(image - expected(Image.fromarray(COLOURS))).max() < 1e-6
    assert [note for note in notes if "labels" not in note] == []


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_grey_values_of_12_bits_in_16_keep_their_order_and_are_not_white(tmp_path: Path, name: str) -> None:
    folder = put(tmp_path, Image.fromarray(RISING), name)
    image, notes = read(folder)
    assert all(np.array_equal(image[0], channel) for channel in image[1:])
    assert len(np.unique(image[0])) == len(np.unique(RISING)) and (np.diff(image[0].ravel()) >= 0).all()
    # White is what the file's depth says, and how to say another one is said.
    assert np.abs(image[0] - RISING / 65535).max() < 1e-6
    assert any("if they hold 12 bits, give --bit-depth 12" in note for note in notes)
    told, _ = read(folder, replace(INFO, bit_depth=12))
    assert np.abs(told[0] - RISING / 4095).max() < 1e-6


def test_the_four_inks_of_print_become_colours(tmp_path: Path) -> None:
    written = Image.fromarray(COLOURS).resize((WIDTH, HEIGHT)).convert("CMYK")
    folder = put(tmp_path, written, "a.jpg", quality=95)
    with Image.open(folder / "a.jpg") as found:
        assert np.abs(read(folder)[0] - expected(found)).max() < 1e-6


def test_transparency_is_left_out_and_colours_stay(tmp_path: Path) -> None:
    alpha = np.full((HEIGHT, WIDTH, 1), 90, np.uint8)
    image, _ = read(put(tmp_path, Image.fromarray(np.concatenate([COLOURS, alpha], 2))))
    assert np.abs(image - expected(Image.fromarray(COLOURS))).max() < 1e-6


def test_a_photograph_that_lies_on_its_side_is_read_as_training_did_and_that_is_said(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    folder = put(tmp_path, Image.fromarray(COLOURS), "a.jpg", exif=exif, quality=95)
    with Image.open(folder / "a.jpg") as found:
        image, notes = read(folder)
        assert np.abs(image - expected(found)).max() < 1e-6
    assert any("rotat" in note or "turned" in note or "EXIF" in note for note in notes)


def test_the_other_ending_of_jpeg(tmp_path: Path) -> None:
    image, _ = read(put(tmp_path, Image.fromarray(COLOURS), "a.jfif", format="JPEG", quality=100))
    assert image.shape == (3, HEIGHT, WIDTH)


@pytest.mark.parametrize("labelled", [False, True])
def test_a_folder_that_is_a_link_is_followed_in_both_branches(tmp_path: Path, labelled: bool) -> None:
    put(tmp_path / "archive" / "day 1", Image.fromarray(COLOURS))
    linked = tmp_path / "linked"
    linked.mkdir()
    (linked / "day1").symlink_to(tmp_path / "archive" / "day 1")
    (linked / "day1" / "round").symlink_to(linked)  # and a way back
    source = as_source(linked, INFO, keep_labels=labelled)
    (batch,) = source.batches(4)
    assert len(batch.images) == 1
    assert (batch.labels is not None) == labelled
