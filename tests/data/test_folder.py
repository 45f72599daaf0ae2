from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import fimaq_deploy as fd
from fimaq_deploy.data.folder import folder_images
from fimaq_deploy.data.source import ImageSource
from fimaq_deploy.errors import UserError
from fimaq_deploy.models.describe import ModelInfo, describe_model

Save = Callable[..., None]
Levels = Callable[[ImageSource], list[int]]


def truncated(path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[:1500])


def labels_of(source: ImageSource) -> list[int]:
    return [int(label) for batch in source.batches() if batch.labels is not None for label in batch.labels]


# --- order ---


def test_a_plain_folder_has_images_at_any_depth(classes: Path, colour: ModelInfo, levels: Levels) -> None:
    source = folder_images(classes, colour)
    assert (source.count, source.labelled) == (10, False)
    assert source.take(3).shape == (3, 3, 16, 16)
    assert sorted(levels(source)) == [*range(10, 15), *range(20, 25)]


def test_order_is_mixed_and_comes_from_the_seed(classes: Path, colour: ModelInfo, levels: Levels) -> None:
    first = levels(folder_images(classes, colour, seed=1))
    assert first == levels(folder_images(classes, colour, seed=1))
    assert first != levels(folder_images(classes, colour, seed=2))
    assert first != sorted(first)


def test_every_pass_is_the_same(classes: Path, colour: ModelInfo, levels: Levels) -> None:
    source = folder_images(classes, colour)
    assert levels(source) == levels(source)


def test_limit_draws_some(classes: Path, colour: ModelInfo, levels: Levels) -> None:
    source = folder_images(classes, colour, limit=4, seed=5)
    assert len(set(levels(source))) == 4
    assert levels(source) == levels(folder_images(classes, colour, seed=5))[:4]
    with pytest.raises(UserError, match="image count 0"):
        folder_images(classes, colour, limit=0)


def test_one_image_file(classes: Path, colour: ModelInfo, levels: Levels) -> None:
    assert levels(folder_images(classes / "b" / "3.png", colour, labelled=True)) == [13]


# --- classes ---


def test_labels_are_the_sorted_folder_names(classes: Path, colour: ModelInfo) -> None:
    (classes / "c").mkdir()
    source = folder_images(classes, colour, labelled=True)
    for images, labels in source.batches(3):
        assert labels is not None
        grey = (images.mean((1, 2, 3)) + 1) * 127.5
        assert torch.equal(labels, (grey < 15).long())
    assert source.notes == ()


@pytest.mark.parametrize("as_file", [False, True])
def test_a_class_map_gives_the_labels(classes: Path, colour: ModelInfo, levels: Levels, as_file: bool) -> None:
    (classes / "map.txt").write_text("b\nx\na\n")
    given: Any = "map.txt" if as_file else {"b": 0, "a": 2}
    source = folder_images(classes, colour, labelled=True, class_map=given)
    found = zip(levels(source), labels_of(source), strict=True)
    assert all(label == (0 if level < 15 else 2) for level, label in found)
    assert "images of 2 of the model's 3 classes" in source.notes


def test_linked_class_folders_and_files(classes: Path, tmp_path: Path, colour: ModelInfo, levels: Levels) -> None:
    root = tmp_path / "linked"
    (root / "b").mkdir(parents=True)
    (root / "a").symlink_to(classes / "a")
    (root / "b" / "more").symlink_to(classes / "b")
    (root / "b" / "same.png").symlink_to(classes / "b" / "0.png")
    (root / "b" / "up").symlink_to(root)
    (root / "gone").symlink_to(classes / "absent")
    (root / "self").symlink_to(root)
    source = folder_images(root, colour, labelled=True)
    found = list(zip(levels(source), labels_of(source), strict=True))
    assert sorted(found) == [(10, 1), *((10 + k, 1) for k in range(5)), *((20 + k, 0) for k in range(5))]
    assert source.notes[0] == (f"left out of {root}: 1 broken links, 2 folders that were read already, through a link")


def test_files_beside_class_folders_are_said(classes: Path, colour: ModelInfo, save: Save) -> None:
    save(classes / "stray.png", 1)
    (classes / "a" / "notes.txt").write_text("no image")
    save(classes / ".hidden" / "x.png", 200)
    source = folder_images(classes, colour, labelled=True)
    assert source.count == 10
    assert source.notes[0] == (
        f"left out of {classes}: 1 hidden, 1 files beside the class folders, 1 that Pillow does not open (1 .txt)"
    )


def test_without_sub_folders_there_are_no_labels(tmp_path: Path, colour: ModelInfo, save: Save) -> None:
    save(tmp_path / "a.png", 1)
    source = folder_images(tmp_path, colour, labelled=True)
    assert (source.labelled, source.count) == (False, 1)
    assert source.notes == ("no sub-folders, so no labels: one folder a class would give them",)


def test_a_model_without_classes_needs_no_class_folders(classes: Path, colour: ModelInfo) -> None:
    source = folder_images(classes, replace(colour, classes=0), labelled=True)
    assert (source.labelled, source.count) == (False, 10)


def test_more_folders_than_classes(classes: Path, colour: ModelInfo) -> None:
    with pytest.raises(UserError, match="2 class folders, the model has 1 classes"):
        folder_images(classes, replace(colour, classes=1), labelled=True)


# --- files that are not used ---


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "RGBA", "CMYK", "1", "I;16"])
def test_any_mode_feeds_grey_and_colour_models(tmp_path: Path, mode: str, grey: ModelInfo, colour: ModelInfo) -> None:
    white = Image.new("RGB", (20, 20), (255,) * 3)
    deep = Image.fromarray(np.full((20, 20), 65535, np.uint16))
    (deep if mode == "I;16" else white.convert(mode)).save(tmp_path / "a.tiff")
    for info in (grey, colour):
        assert torch.allclose(folder_images(tmp_path, info).take(1), torch.ones(1, *info.input_shape))


def test_unreadable_images_are_skipped_and_counted(classes: Path, colour: ModelInfo, levels: Levels) -> None:
    (classes / "a" / "text.jpg").write_text("no image")
    (classes / "b" / "empty.png").touch()
    truncated(classes / "b" / "truncated.jpg")
    truncated(classes / "b" / "truncated.png")
    source = folder_images(classes, replace(colour, classes=2), labelled=True)
    assert len(levels(source)) == 10
    assert source.count == 10
    assert [file.name for file in source.skipped] == ["text.jpg", "empty.png", "truncated.jpg", "truncated.png"]
    assert source.notes == (
        "4 of 14 image files could not be used and were skipped; the first is a/text.jpg: no image that Pillow opens",
    )
    assert torch.tensor(labels_of(source)).bincount().tolist() == [5, 5]


def test_what_is_special_about_images_is_said(tmp_path: Path, colour: ModelInfo, levels: Levels) -> None:
    exif = Image.Exif()
    exif[0x0112] = 3
    for index in range(3):
        Image.new("RGB", (20, 20)).save(tmp_path / f"{index}.jpg", exif=exif)
    Image.fromarray(np.full((20, 20), 50_000, np.uint16)).save(tmp_path / "deep.png")
    source = folder_images(tmp_path, colour)
    for _ in range(2):
        levels(source)
    assert set(source.notes) == {
        "images with an EXIF rotation, which is not applied, as in timm: 3",
        "images with 16 bits a channel: 1; the largest value of that depth is white",
    }


def test_nothing_readable(tmp_path: Path, colour: ModelInfo) -> None:
    truncated(tmp_path / "a.jpg")
    with pytest.raises(UserError, match=r"not one of 1 files can be used \(first a\.jpg: image file is truncated"):
        folder_images(tmp_path, colour)


def test_missing_and_empty_folders(tmp_path: Path, colour: ModelInfo) -> None:
    with pytest.raises(UserError, match=r"no image folder .*absent: expected a folder of images"):
        folder_images(tmp_path / "absent", colour)
    (tmp_path / "notes.txt").write_text("no image")
    with pytest.raises(UserError, match=r"no image in .*: expected files that Pillow opens; left out: 1 that Pillow"):
        folder_images(tmp_path, colour)
    (tmp_path / "class").mkdir()
    with pytest.raises(UserError, match=r"no image in .*; left out: 1 files beside the class folders"):
        folder_images(tmp_path, colour, labelled=True)


def test_a_model_of_other_channels_takes_array_files(tmp_path: Path, colour: ModelInfo, save: Save) -> None:
    info = replace(colour, input_shape=(2, 16, 16), mean=(0.5,) * 2, std=(0.5,) * 2)
    save(tmp_path / "a.png", 1)
    with pytest.raises(UserError, match=r"not one of 1 files can be used \(first a\.png: images feed 1 or 3 channels"):
        folder_images(tmp_path, info)
    np.save(tmp_path / "b.npy", np.zeros((2, 16, 16), np.float32))
    source = folder_images(tmp_path, info)
    assert source.take(5).shape == (1, 2, 16, 16)
    assert "a.png: images feed 1 or 3 channels, the model reads 2" in source.notes[0]


# --- the case: one set of images under three namings ---

WORDS = ["zebra", "apple", "mango", "cat", "dog", "bus", "car", "tree", "rose", "ant", "bee", "cow"]


def test_the_original_is_right_under_every_naming(tmp_path: Path, tiny_vit: Callable[..., Any]) -> None:
    """Sixty images sorted by what the model says of them: it has to be right on every one of them."""
    model = tiny_vit(num_classes=12)
    info = describe_model(model)
    pixels = np.random.default_rng(3).integers(0, 256, (60, 4, 4, 3), np.uint8)
    pictures = [Image.fromarray(image).resize((16, 16), Image.Resampling.NEAREST) for image in pixels]
    predictions = fd.evaluate(model, pictures).predictions
    assert len(set(predictions.tolist())) > 2
    for naming in (str, "{:03d}".format, WORDS.__getitem__):
        root = tmp_path / naming(1)
        for k in range(12):
            (root / naming(k)).mkdir(parents=True)
        for index, (picture, k) in enumerate(zip(pictures, predictions, strict=True)):
            picture.save(root / naming(int(k)) / f"{index}.png")
    (tmp_path / "words.txt").write_text("\n".join(WORDS))
    for naming, class_map in ((str, None), ("{:03d}".format, None), (WORDS.__getitem__, tmp_path / "words.txt")):
        source = folder_images(tmp_path / naming(1), info, labelled=True, class_map=class_map)
        assert fd.evaluate(model, source).top1 == 100
