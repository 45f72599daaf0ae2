"""The user's images come first, then those that ship with a model; only random weights get generated ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from fixtures import coco

from fimaq_deploy.data.choose import (
    GENERATED_EVALUATION_IMAGES,
    calibration_source,
    evaluation_source,
    example_images,
    generated_images,
    kept,
)
from fimaq_deploy.data.intake import Images, as_source
from fimaq_deploy.data.shapes import generate
from fimaq_deploy.data.source import ImageSource
from fimaq_deploy.errors import UserError
from fimaq_deploy.models.describe import ModelInfo

BUNDLED = "vit_digits"


def calibration(
    name: str, info: ModelInfo, count: int = 4, images: Images | None = None, weights: str = "random", seed: int = 0
) -> ImageSource:
    return calibration_source(name, info, count, images=images, weights=weights, seed=seed)


def test_a_users_images_come_before_all_others(
    classes: Path, colour: ModelInfo, levels: Callable[[ImageSource], list[int]]
) -> None:
    every = {10, 11, 12, 13, 14, 20, 21, 22, 23, 24}
    for name in (BUNDLED, "vit_t"):
        source = calibration(name, colour, images=classes)
        assert len(levels(source)) == 4 and set(levels(source)) <= every and not source.labelled
        whole = evaluation_source(name, colour, source, images=classes, own_calibration=True)
        assert set(levels(whole)) == every and whole.labelled
        few = example_images(name, colour, classes, 3)
        assert len(levels(few)) == 3 and set(levels(few)) <= every and not few.labelled
    draws = {tuple(levels(calibration("vit_t", colour, images=classes, seed=seed))) for seed in range(4)}
    assert len(draws) > 1, "the seed draws them"


def test_a_bundled_model_brings_its_images_whatever_its_weights(colour: ModelInfo) -> None:
    for weights in ("random", "pretrained"):
        source = calibration(BUNDLED, colour, weights=weights)
        assert (source.description, source.count) == ("bundled digits, calibration split", 4)
    test = evaluation_source(BUNDLED, colour, source, images=None, own_calibration=True)
    assert (test.description, test.count, test.labelled) == ("bundled digits, test split", 600, True)
    assert example_images(BUNDLED, colour, None, 5).count == 5


def test_only_random_weights_learn_from_generated_images(colour: ModelInfo) -> None:
    source = calibration("vit_t", colour)
    assert (source.description, source.count, source.labelled) == ("generated shapes", 4, False)
    other = evaluation_source("vit_t", colour, source, images=None, own_calibration=False)
    assert other.count == GENERATED_EVALUATION_IMAGES and not torch.equal(other.take(4), source.take(4))
    with pytest.raises(UserError) as raised:
        calibration("vit_t", colour, weights="pretrained")
    assert str(raised.value) == "model 'vit_t' brings no images: give some with --images, such as a folder of them"


def test_a_users_calibration_images_are_compared_on_where_there_are_no_others(classes: Path, colour: ModelInfo) -> None:
    source = calibration("vit_t", colour, images=classes)
    assert evaluation_source("vit_t", colour, source, images=None, own_calibration=True) is source


@pytest.mark.parametrize("count", [0, -2])
@pytest.mark.parametrize("name", [BUNDLED, "vit_t"])
def test_no_example_at_all_is_one_line(name: str, count: int, colour: ModelInfo) -> None:
    with pytest.raises(UserError, match=rf"^{count} images: expected at least 1$"):
        example_images(name, colour, None, count)


def test_generated_images_are_normalised_as_the_model_reads(colour: ModelInfo) -> None:
    info = replace(colour, input_shape=(3, 32, 32), mean=(0.1, 0.2, 0.3), std=(0.5, 0.25, 2.0))
    pixels = torch.from_numpy(generate("test", 3)[0]).double() / 255
    expected = (pixels - torch.tensor(info.mean).view(3, 1, 1)) / torch.tensor(info.std).view(3, 1, 1)
    torch.testing.assert_close(generated_images(info, "test", 3).take(9).double(), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("shape", [(1, 16, 16), (3, 20, 48), (5, 8, 8)])
def test_generated_images_have_the_models_shape(shape: tuple[int, int, int], colour: ModelInfo) -> None:
    channels = shape[0]
    info = replace(colour, input_shape=shape, mean=(0.0,) * channels, std=(1.0,) * channels)
    images = generated_images(info, "calibration", 2).take(2)
    assert images.shape == (2, *shape) and 0 <= images.min() < images.max() <= 1
    if channels != 3:
        assert torch.equal(images, images[:, :1].expand_as(images)), "every channel is the grey picture"


def test_what_can_be_read_but_once_is_kept_as_far_as_it_is_needed() -> None:
    batches = [(torch.rand(4, 3, 8, 8), torch.arange(4) + 4 * number) for number in range(5)]
    drawn: list[int] = []

    def generator() -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        for number, batch in enumerate(batches):
            drawn.append(number)
            yield batch

    source = kept(as_source(generator()), 6)
    assert (source.count, source.labelled) == (6, True) and max(drawn) < 4
    first, again = (torch.cat([each.images for each in source.batches(4)]) for _ in range(2))
    assert torch.equal(first, again) and torch.equal(first, torch.cat([images for images, _ in batches])[:6])
    whole = kept(as_source(generator()))
    assert whole.count == 20 and [each.labels.tolist() for each in whole.batches(20)] == [list(range(20))]


def test_what_can_be_read_again_is_left_as_it_is() -> None:
    source = as_source([torch.rand(2, 3, 8, 8)])
    assert kept(source, 1) is source


def test_annotations_go_beside_a_folder(tmp_path: Path, colour: ModelInfo) -> None:
    coco.write(tmp_path)
    info, calibrated = coco.info(), generated_images(colour, "test", 1)

    def chosen(images: Images | None, **given: Path) -> ImageSource:
        return evaluation_source("vit_t", info, calibrated, images=images, own_calibration=True, **given)

    objects = chosen(tmp_path / "images", coco=tmp_path / "annotations.json").take(1)
    maps = chosen(str(tmp_path / "images"), maps=tmp_path / "maps").take(1)
    assert torch.equal(objects, maps)
    with pytest.raises(UserError, match="--eval-coco needs the folder of its images"):
        chosen(None, coco=tmp_path / "annotations.json")
    with pytest.raises(UserError, match="--eval-maps needs the folder of its images"):
        chosen(torch.zeros(1, 3, 96, 96), maps=tmp_path / "maps")
    with pytest.raises(UserError, match="--eval-coco and --eval-maps: give the one"):
        chosen(tmp_path / "images", coco=tmp_path / "annotations.json", maps=tmp_path / "maps")


@pytest.mark.parametrize("name", ["maskrcnn_shapes", "segmenter_shapes"])
def test_models_with_an_encoder_inside_bring_their_pictures(name: str) -> None:
    source = calibration(name, coco.info())
    assert (source.description, source.count) == ("bundled scenes, calibration split", 4)
