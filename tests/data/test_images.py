from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from fimaq_deploy.data.bundled import bundled_images
from fimaq_deploy.data.folder import folder_images
from fimaq_deploy.data.memory import image_source
from fimaq_deploy.data.source import ImageSource
from fimaq_deploy.errors import UserError
from fimaq_deploy.models.describe import ModelInfo

COLOUR = ModelInfo("m", (3, 16, 16), (0.5,) * 3, (0.5,) * 3, "bicubic", 1.0, "center", 3)
GREY = replace(COLOUR, input_shape=(1, 16, 16), mean=(0.5,), std=(0.5,))


def save(path: Path, value: int, size: tuple[int, int] = (20, 20), mode: str = "RGB") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, (value,) * 3 if mode == "RGB" else value).save(path)


def truncated(path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[:1500])


def values(source: ImageSource) -> list[int]:
    """The grey level that each image was saved with."""
    return [round(float((image.mean() + 1) * 127.5)) for batch in source for image in batch]


def message(images: Any, **options: Any) -> str:
    with pytest.raises(UserError) as caught:
        list(image_source(images, **options))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def pixels(*shape: int) -> torch.Tensor:
    return torch.arange(float(np.prod(shape))).reshape(shape)


@pytest.fixture
def classes(tmp_path: Path) -> Path:
    """Two classes of five grey levels: b has 10 to 14, a has 20 to 24, one of them deeper."""
    for index in range(5):
        save(tmp_path / "b" / f"{index}.png", 10 + index)
        save(tmp_path / "a" / ("deeper" if index == 4 else "") / f"{index}.PNG", 20 + index)
    return tmp_path


# --- bundled ---


@pytest.mark.parametrize(("split", "count"), [("calibration", 256), ("test", 600)])
def test_bundled_digits(split: Any, count: int) -> None:
    source = bundled_images("digits", split)
    assert source.count == count
    images = source.take(1000)
    assert images.shape == (count, 1, 16, 16)
    assert images.dtype == torch.float32
    assert (images.min(), images.max()) == (-1, 1)


def test_bundled_shapes() -> None:
    source = bundled_images("shapes", "test", 70)
    batches = list(source.batches(32))
    assert [len(batch.images) for batch in batches] == [32, 32, 6]
    assert all(batch.labels is not None and batch.labels.dtype == torch.int64 for batch in batches)
    assert (source.count, source.labelled, source.skipped) == (70, True, ())
    assert source.description == "bundled shapes, test split"


def test_bundled_count_of_zero() -> None:
    with pytest.raises(UserError, match="image count 0: expected at least 1"):
        bundled_images("shapes", "test", 0)


# --- folders ---


def test_calibration_folder_takes_images_at_any_depth(classes: Path) -> None:
    (classes / "notes.txt").write_text("no image")
    save(classes / ".hidden" / "x.png", 200)
    source = folder_images(classes, COLOUR)
    assert (source.count, source.labelled) == (10, False)
    assert source.take(3).shape == (3, 3, 16, 16)
    assert sorted(values(source)) == [*range(10, 15), *range(20, 25)]


def test_order_is_mixed_and_comes_from_the_seed(classes: Path) -> None:
    first = values(folder_images(classes, COLOUR, seed=1))
    assert first == values(folder_images(classes, COLOUR, seed=1))
    assert first != values(folder_images(classes, COLOUR, seed=2))
    assert first != sorted(first)


def test_every_pass_is_the_same(classes: Path) -> None:
    source = folder_images(classes, COLOUR)
    assert values(source) == values(source)


def test_limit_draws_some(classes: Path) -> None:
    source = folder_images(classes, COLOUR, limit=4, seed=5)
    assert len(set(values(source))) == 4
    assert values(source) == values(folder_images(classes, COLOUR, seed=5))[:4]


def test_labels_are_the_sorted_folder_names(classes: Path) -> None:
    (classes / "c").mkdir()
    source = folder_images(classes, COLOUR, labelled=True)
    for images, labels in source.batches(3):
        assert labels is not None
        grey = (images.mean((1, 2, 3)) + 1) * 127.5
        assert torch.equal(labels, (grey < 15).long())
    assert source.notes == ()


def test_fewer_class_folders_than_classes_are_noted(classes: Path) -> None:
    source = folder_images(classes, COLOUR, labelled=True)
    assert source.notes == ("2 class folders for 3 classes: sorted names are taken as labels 0 to 1",)


def test_preprocessing_is_that_of_timm(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (30, 40, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "a.png")
    info = replace(COLOUR, mean=(0.1, 0.2, 0.3), std=(0.5, 0.6, 0.7), crop_pct=0.8, interpolation="bilinear")
    smaller = Image.fromarray(noise).resize((26, 20), Image.Resampling.BILINEAR)
    expected = torch.from_numpy(np.array(smaller.crop((5, 2, 21, 18)))).permute(2, 0, 1) / 255
    expected = (expected - torch.tensor(info.mean)[:, None, None]) / torch.tensor(info.std)[:, None, None]
    assert torch.allclose(folder_images(tmp_path, info).take(1)[0], expected, atol=1e-6)


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "RGBA", "CMYK", "1"])
def test_any_colour_mode_feeds_grey_and_colour_models(tmp_path: Path, mode: str) -> None:
    Image.new("RGB", (20, 20), (255,) * 3).convert(mode).save(tmp_path / "a.tiff")
    for info in (GREY, COLOUR):
        assert torch.equal(folder_images(tmp_path, info).take(1), torch.ones(1, *info.input_shape))


def test_unreadable_images_are_skipped_and_counted(classes: Path) -> None:
    (classes / "a" / "text.jpg").write_text("no image")
    (classes / "b" / "empty.png").touch()
    truncated(classes / "b" / "truncated.jpg")
    truncated(classes / "b" / "truncated.png")
    source = folder_images(classes, COLOUR, labelled=True)
    assert len(values(source)) == 10
    assert source.count == 10
    assert [file.name for file in source.skipped] == ["text.jpg", "empty.png", "truncated.jpg", "truncated.png"]
    assert source.notes[0] == "4 of 14 image files could not be decoded and were skipped"
    labels = torch.cat([batch.labels for batch in source.batches() if batch.labels is not None])
    assert labels.bincount().tolist() == [5, 5]


def test_folder_of_unreadable_images(tmp_path: Path) -> None:
    truncated(tmp_path / "a.jpg")
    with pytest.raises(UserError, match=r"not one of 1 files is readable \(first a\.jpg\)"):
        folder_images(tmp_path, COLOUR)


def test_missing_and_empty_folders(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no image folder '.*absent': expected a folder of images"):
        folder_images(tmp_path / "absent", COLOUR)
    (tmp_path / "notes.txt").write_text("no image")
    with pytest.raises(UserError, match=r"is empty: expected files such as \.bmp"):
        folder_images(tmp_path, COLOUR)
    (tmp_path / "class").mkdir()
    with pytest.raises(UserError, match="is empty"):
        folder_images(tmp_path, COLOUR, labelled=True)


def test_evaluation_folder_without_classes(tmp_path: Path) -> None:
    save(tmp_path / "a.png", 1)
    with pytest.raises(UserError, match="has no class sub-folders: expected one folder of images per class"):
        folder_images(tmp_path, COLOUR, labelled=True)


def test_evaluation_folder_with_too_many_classes(classes: Path) -> None:
    with pytest.raises(UserError, match="has 2 class folders, the model 1 classes"):
        folder_images(classes, replace(COLOUR, classes=1), labelled=True)


def test_files_for_a_model_of_two_channels(classes: Path) -> None:
    with pytest.raises(UserError, match="feed 1 or 3 channels, the model reads 2"):
        folder_images(classes, replace(COLOUR, input_shape=(2, 16, 16)))


def test_limit_of_zero(classes: Path) -> None:
    with pytest.raises(UserError, match="image count 0"):
        folder_images(classes, COLOUR, limit=0)


# --- arrays and iterables ---


@pytest.mark.parametrize(
    "convert",
    [lambda x: x, lambda x: x.numpy(), lambda x: x.numpy()[::-1], lambda x: np.broadcast_to(x[:1].numpy(), x.shape)],
)
def test_arrays(convert: Any) -> None:
    given = convert(pixels(5, 3, 4, 4))
    source = image_source(given, labels=[4, 3, 2, 1, 0], shape=(3, 4, 4))
    assert (source.count, source.labelled) == (5, True)
    images, labels = zip(*source.batches(2), strict=True)
    assert np.array_equal(torch.cat(images).numpy(), np.asarray(given))
    assert torch.cat(labels).tolist() == [4, 3, 2, 1, 0]


def test_source_is_returned_as_it_is() -> None:
    source = image_source(pixels(1, 1, 2, 2))
    assert image_source(source) is source
    assert "a source brings its own labels" in message(source, labels=[1])


def test_batches_are_regrouped() -> None:
    whole = pixels(10, 1, 2, 2)
    source = image_source([whole[:1], whole[1:8].numpy(), whole[8:]])
    found = list(source.batches(3))
    assert [len(batch.images) for batch in found] == [3, 3, 3, 1]
    assert torch.equal(torch.cat([batch.images for batch in found]), whole)
    assert torch.equal(source.take(4), whole[:4])
    assert (source.count, source.labelled) == (None, False)


def test_pairs_bring_labels() -> None:
    whole = pixels(4, 1, 2, 2)
    source = image_source([(whole[:3], [0, 1, 2]), [whole[3:], torch.tensor([3])]])
    assert source.labelled
    assert [batch.labels.tolist() for batch in source.batches(2) if batch.labels is not None] == [[0, 1], [2, 3]]


def test_data_loader() -> None:
    data = torch.utils.data.TensorDataset(pixels(5, 1, 2, 2), torch.arange(5))
    source = image_source(torch.utils.data.DataLoader(data, batch_size=2))
    for _ in range(2):
        assert [b.labels.tolist() for b in source.batches(3) if b.labels is not None] == [[0, 1, 2], [3, 4]]


def test_generator_streams_and_gives_one_pass() -> None:
    drawn = []

    def generate() -> Iterator[torch.Tensor]:
        for index in range(100):
            drawn.append(index)
            yield pixels(2, 1, 2, 2)

    source = image_source(generate())
    assert len(source.take(5)) == 5
    assert len(drawn) <= 4
    with pytest.raises(UserError, match="was read before: pass a list or a DataLoader"):
        source.take(5)


def test_images_of_two_sizes() -> None:
    two = [pixels(1, 3, 8, 8), pixels(1, 3, 8, 6)]
    assert message(two) == "batch 1 holds images of 3×8×6: expected 3×8×8, resize them first"


def test_images_of_another_shape_than_the_model_reads() -> None:
    assert "images holds images of 1×4×4: expected 3×4×4" in message(pixels(1, 1, 4, 4), shape=(3, 4, 4))
    assert "batch 0 holds images of 3×4×4: expected 3×8×8" in message([pixels(1, 3, 4, 4)], shape=(3, 8, 8))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float64, torch.float16])
def test_wrong_data_type(dtype: torch.dtype) -> None:
    assert "expected float32, scaled and normalised" in message(torch.ones(1, 1, 2, 2, dtype=dtype))
    assert "expected float32" in message([torch.ones(1, 1, 2, 2, dtype=dtype).numpy()])


def test_wrong_rank() -> None:
    assert message(pixels(3, 4, 4)) == "images has shape (3, 4, 4): expected 4 axes (N, C, H, W)"
    assert message([pixels(3, 4, 4)]).startswith("batch 0 has shape (3, 4, 4)")


@pytest.mark.parametrize("value", [float("nan"), float("-inf")])
def test_pixels_that_are_not_finite(value: float) -> None:
    images = pixels(4, 1, 2, 2)
    images[2, 0, 1, 1] = value
    assert message(images) == "images: 1 of 4 images hold NaN or infinite pixels; remove or repair them"
    assert message([images[:2], images[2:]]).startswith("batch 1: 1 of 2 images hold NaN")


def test_nothing_to_read() -> None:
    assert message(pixels(0, 3, 4, 4)) == "images has size 0: expected at least one image"
    assert message([pixels(1, 3, 4, 4), pixels(0, 3, 4, 4)]).startswith("batch 1 has size 0")
    assert "yields nothing: expected at least one" in message([])
    assert "yields nothing" in message(iter(()))


@pytest.mark.parametrize("size", [0, -1])
def test_batch_size_of_zero(size: int) -> None:
    for source in (bundled_images("digits", "test"), image_source([pixels(1, 1, 2, 2)])):
        with pytest.raises(UserError, match=f"batch size {size}: expected at least 1"):
            list(source.batches(size))
        with pytest.raises(UserError, match="image count"):
            source.take(size)


def test_wrong_types() -> None:
    assert message("folder").startswith("images of type str: expected a float32 (N, C, H, W) array")
    assert message(3).startswith("images of type int")
    assert message(["a.png"]).startswith("batch 0 is a str")


def test_wrong_labels() -> None:
    images = pixels(3, 1, 2, 2)
    assert "expected 3 integers, one an image" in message(images, labels=[1, 2])
    assert "expected 3 integers" in message(images, labels=[0.5, 1.0, 2.0])
    assert "yield pairs (images, labels) instead" in message([images], labels=[1, 2, 3])
    assert "some image batches have labels" in message([(images, [1, 2, 3]), images])
