"""COCO files: read as they are meant, and refused in one line where they do not match."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fixtures import coco
from PIL import Image

from fimaq_deploy.data.coco import coco_images, decoded_mask
from fimaq_deploy.data.objects import boxes_of, labels_of, masks_of, scores_of
from fimaq_deploy.errors import UserError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    coco.write(tmp_path)
    return tmp_path


def opened(folder: Path, **options: Any) -> Any:
    return coco_images(folder / "images", folder / "annotations.json", coco.info(**options))


def test_objects_are_those_that_were_written(tmp_path: Path) -> None:
    found = coco.write(tmp_path)
    source = opened(tmp_path)
    (batch,) = source.batches()
    truth = found.objects()
    assert np.allclose(batch.images.numpy(), found.images / 127.5 - 1, atol=1e-6)
    for image, packed in enumerate(batch.labels.numpy()):
        shown = truth["labels"][image] >= 0
        count = shown.sum()
        assert labels_of(packed)[:count].tolist() == truth["labels"][image][shown].tolist()
        assert (labels_of(packed)[count:] == -1).all()
        assert np.array_equal(boxes_of(packed)[:count], truth["boxes"][image][shown])
        assert np.array_equal(masks_of(packed, 96, 96)[:count], truth["masks"][image][shown])
        assert (scores_of(packed) == 1).all()
    assert (source.count, source.labelled) == (3, True)


def test_boxes_and_masks_are_resized_with_the_image(folder: Path) -> None:
    (whole,), (small,) = (list(opened(folder, size=size).batches()) for size in ((96, 96), (48, 192)))
    assert tuple(small.images.shape) == (3, 3, 48, 192)
    scale = np.array([2, 0.5, 2, 0.5])
    assert np.allclose(boxes_of(small.labels.numpy()), boxes_of(whole.labels.numpy()) * scale)
    shares = [masks_of(each.labels.numpy(), *each.images.shape[2:]).mean((2, 3)) for each in (whole, small)]
    assert np.allclose(*shares, atol=0.01)


def wide(folder: Path, crop_mode: str) -> Any:
    """The middle picture twice as wide, in black; the model reads 48×48."""
    path = folder / "images" / "001.png"
    Image.open(path).crop((-48, 0, 144, 96)).save(path)

    def shift(document: Any) -> None:
        document["images"][1].update(width=192)
        for one in document["annotations"]:
            one.pop("segmentation")
            if one["image_id"] == 101:
                one["bbox"][0] += 48
        document["annotations"] += [{"id": 900, "image_id": 101, "category_id": 10, "bbox": [0, 8, 40, 16]}]

    changed(folder, shift)
    info = replace(coco.info((48, 48)), crop_mode=crop_mode)
    return coco_images(folder / "images", folder / "annotations.json", info)


def test_boxes_are_cropped_with_the_image(tmp_path: Path) -> None:
    """The crop of the widened picture is the picture as it was, and what was drawn beside it is gone."""
    for name in ("narrow", "wide"):
        (tmp_path / name).mkdir()
        coco.write(tmp_path / name)
    (narrow,) = opened(tmp_path / "narrow", size=(48, 48)).batches()
    source = wide(tmp_path / "wide", "center")
    (found,) = source.batches()
    assert torch.allclose(found.images[..., 4:-4], narrow.images[..., 4:-4], atol=0.02), "but for its edges"
    own, true = (one.labels.numpy() for one in (found, narrow))
    there = labels_of(true[1]) >= 0
    assert labels_of(own[1])[labels_of(own[1]) >= 0].tolist() == labels_of(true[1])[there].tolist()
    assert np.allclose(boxes_of(own[1])[: there.sum()], boxes_of(true[1])[there], atol=1e-4)
    assert any("(center, 1 of the side) leaves 1 out and cuts 0" in one for one in source.notes)


def test_boxes_keep_their_place_in_a_filled_image(folder: Path) -> None:
    source = wide(folder, "border")
    (found,) = source.batches()
    box = boxes_of(found.labels.numpy()[1])[labels_of(found.labels.numpy()[1]) >= 0][-1]
    assert box.tolist() == [0, 12 + 2, 10, 12 + 6], "a quarter of [0, 8, 40, 24], below 12 rows of filling"
    assert source.notes[0].endswith("are resized in proportion and filled up to 48×48, with their objects")


def test_a_crop_that_leaves_no_object_is_refused(folder: Path) -> None:
    Image.new("RGB", (960, 96)).save(folder / "images" / "001.png")

    def moved(document: Any) -> None:
        document["images"] = [{**document["images"][1], "width": 960}]
        document["annotations"] = [{"id": 1, "image_id": 101, "category_id": 10, "bbox": [5, 5, 50, 50]}]

    changed(folder, moved)
    with pytest.raises(UserError, match=r"\(center, 1 of the side\) leaves none of 1 objects: give --crop-mode"):
        coco_images(folder / "images", folder / "annotations.json", replace(coco.info(), crop_mode="center"))


def test_categories_are_found_by_name_or_taken_by_id(folder: Path) -> None:
    names = ("background", *(name.upper() for name in coco.SILHOUETTES))
    ours, named, numbered = (opened(folder, names=each) for each in (coco.SILHOUETTES, names, ()))
    labels = [labels_of(next(each.batches()).labels.numpy()) for each in (ours, named, numbered)]
    shown = labels[0] >= 0
    assert (labels[1][shown] == labels[0][shown] + 1).all()
    assert (labels[2][shown] == 10 + 3 * labels[0][shown]).all()
    assert "ids of the categories" in numbered.notes[0]
    assert not named.notes


def unnamed(folder: Path, labels: range | None, **options: Any) -> Any:
    info = replace(coco.info(names=(), **options), labels=labels)
    return coco_images(folder / "images", folder / "annotations.json", info)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (range(3), r"of category 1\d, .*, but the model has 3 classes, 0 to 2, and does not name them: number the cat"),
        (range(31), "of category 31, but the model has 31 classes, 0 to 30, "),
        (range(11, 91), "of category 10, but the model has 80 classes, 11 to 90, "),
    ],
)
def test_ids_that_no_label_can_be_are_refused(tmp_path: Path, labels: range, message: str) -> None:
    coco.write(tmp_path, 16)
    with pytest.raises(UserError, match=message) as refused:
        unnamed(tmp_path, labels)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("labels", [range(32), range(1, 91), None])
def test_ids_with_gaps_and_unused_ones_are_taken(tmp_path: Path, labels: range | None) -> None:
    coco.write(tmp_path, 16)
    changed(tmp_path, lambda d: d["categories"].append({"id": 700, "name": "never drawn"}))
    source = unnamed(tmp_path, labels)
    assert source.count == 16
    assert any(one.startswith("nothing shows how many labels the model has") for one in source.notes) == (not labels)


def test_names_decide_whatever_the_ids_are(tmp_path: Path) -> None:
    coco.write(tmp_path, 16)
    info = replace(coco.info(), labels=range(8))
    assert coco_images(tmp_path / "images", tmp_path / "annotations.json", info).count == 16
    with pytest.raises(UserError, match="label 0 by the model's 8 names, but its labels are 1 to 8: name them"):
        coco_images(tmp_path / "images", tmp_path / "annotations.json", replace(info, labels=range(1, 9)))


def test_images_of_several_sizes_are_told(folder: Path) -> None:
    assert not opened(folder, size=(48, 48)).notes
    (stretched,) = opened(folder, size=(48, 96)).notes
    assert stretched.startswith("images of one size (height 96, width 96) are resized as a whole to 48×96")
    Image.new("RGB", (128, 64)).save(folder / "images" / "001.png")
    changed(folder, lambda d: d["images"][1].update(width=128, height=64))
    changed(folder, lambda d: [one.pop("segmentation") for one in d["annotations"]])
    (told,) = opened(folder).notes
    assert told.startswith("images of 2 sizes (height 64 to 96, width 96 to 128) are resized as a whole to 96×96")
    assert told.endswith("1 of 3 change their proportions")


@pytest.mark.parametrize("kind", ["compressed", "runs"])
def test_masks_of_run_lengths_are_those_of_the_library(kind: str) -> None:
    library = pytest.importorskip("faster_coco_eval.core.mask")
    masks = np.random.default_rng(0).random((5, 13, 300)) < 0.3
    masks[0], masks[1], masks[2, :, 20:280] = False, True, False
    for mask in masks:
        packed = library.encode(np.asfortranarray(mask.astype(np.uint8)))
        counts = packed["counts"]
        text = counts.decode() if isinstance(counts, bytes) else counts
        given = {"size": [13, 300], "counts": text} if kind == "compressed" else coco.runs(mask)
        assert np.array_equal(decoded_mask(given, 13, 300), mask)


def test_polygons_are_filled() -> None:
    mask = decoded_mask([[2, 3, 12, 3, 12, 9, 2, 9], [20, 0, 24, 0, 24, 4, 20, 4]], 16, 32)
    expected = np.zeros((16, 32), bool)
    expected[3:9, 2:12] = expected[0:4, 20:24] = True
    assert (mask ^ expected).sum() <= 10 + 6 + 4 + 4, "one row and one column along the edges"


def changed(folder: Path, change: Any) -> None:
    path = folder / "annotations.json"
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.pop("categories"), "have no list of categories"),
        (lambda d: d["images"].clear() or d["annotations"].clear(), "lists no image"),
        (lambda d: d["annotations"].clear(), "annotates no object in its 3 images"),
        (lambda d: [one.update(iscrowd=1) for one in d["annotations"]], r"annotates only crowds \(\d+\) in its 3"),
        (lambda d: d["images"][1].update(file_name="other.png"), r"1 of the 3 images .* \(first other.png\)"),
        (lambda d: d["images"][1].update(width=80), "has 96×96 pixels, 80×96 in"),
        (lambda d: d["images"][0].pop("id"), "has no id"),
        (lambda d: d["annotations"][0].update(image_id=7), "is of image 7, which is not listed"),
        (lambda d: d["annotations"][0].update(category_id=7), "is of category 7, which is not listed"),
        (lambda d: d["annotations"][0].update(image_id=[7]), r"is of image \[7\], which is not listed"),
        (lambda d: d["annotations"][0].update(category_id={"id": 7}), "which is not listed"),
        (lambda d: d["images"][1].update(file_name="x" * 300), "file name too long"),
        (
            lambda d: d["annotations"][0].update(segmentation={"size": [96, 96], "counts": ["a", 9216]}),
            "expected runs of 9216 pixels",
        ),
        (lambda d: d["annotations"][0].update(segmentation={"size": [96, 96], "counts": [9216.0]}), "expected runs of"),
        (lambda d: d["annotations"][0].update(bbox=[1, 2, -3, 4]), r"has bbox \[1, 2, -3, 4\]"),
        (lambda d: d["annotations"][0].update(bbox=[1, 2, 3]), "expected .left, top, width, height."),
        (
            lambda d: d["annotations"][0].update(segmentation={"size": [3, 4], "counts": [12]}),
            "counts of size .96, 96.",
        ),
        (lambda d: d["annotations"][0].update(segmentation=[[1, 2, 3, 4]]), "at least 3 points"),
        (lambda d: d["categories"][2].update(name="zebra"), r"category 'zebra' \(1 of 8\) is none of the model's 8"),
    ],
)
def test_files_that_do_not_match_are_refused(folder: Path, change: Any, message: str) -> None:
    changed(folder, change)
    with pytest.raises(UserError, match=message):
        opened(folder)


def test_what_is_no_annotation_file_is_refused(folder: Path) -> None:
    (folder / "annotations.json").write_text("[1, 2")
    with pytest.raises(UserError, match="are not JSON"):
        opened(folder)
    (folder / "annotations.json").unlink()
    with pytest.raises(UserError, match="cannot read annotations"):
        opened(folder)
    coco_file = folder / "other.json"
    coco_file.write_text(json.dumps({"images": [], "annotations": [], "categories": []}))
    with pytest.raises(UserError, match="no image folder"):
        coco_images(folder / "nowhere", coco_file, coco.info())


def test_a_damaged_image_is_named(folder: Path) -> None:
    source = opened(folder)
    Image.new("RGB", (96, 96)).save(folder / "images" / "001.png")
    (folder / "images" / "001.png").write_bytes((folder / "images" / "001.png").read_bytes()[:40])
    with pytest.raises(UserError, match=r"image .*001.png"):
        list(source.batches())
