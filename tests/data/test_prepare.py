from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from timm.data import create_transform

from fimaq_deploy.data.decode import Refused
from fimaq_deploy.data.prepare import Preparation, preparation
from fimaq_deploy.errors import UserError
from fimaq_deploy.models.describe import ModelInfo


def timm_transform(info: ModelInfo) -> Any:
    return create_transform(
        info.input_shape,
        mean=info.mean,
        std=info.std,
        interpolation=info.interpolation,
        crop_pct=info.crop_pct,
        crop_mode=info.crop_mode,
    )


@pytest.mark.parametrize("crop_mode", ["center", "squash", "border"])
@pytest.mark.parametrize("shape", [(3, 16, 16), (3, 12, 20)])
def test_bytes_are_what_timm_makes_of_them(
    tmp_path: Path, colour: ModelInfo, noise: Callable[..., Any], crop_mode: str, shape: Any
) -> None:
    info = replace(
        colour, input_shape=shape, mean=(0.1, 0.2, 0.3), std=(0.5, 0.6, 0.7), crop_pct=0.8, crop_mode=crop_mode
    )
    picture = Image.fromarray(noise())
    picture.save(tmp_path / "a.png")
    assert torch.equal(Preparation(info).read(tmp_path / "a.png"), timm_transform(info)(picture))


@pytest.mark.parametrize("crop_mode", ["center", "squash", "border"])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear", "nearest", "lanczos"])
def test_deep_pixels_are_prepared_like_bytes(
    tmp_path: Path, colour: ModelInfo, noise: Callable[..., Any], crop_mode: str, interpolation: str
) -> None:
    """The same picture in 8 and in 16 bits differs by the rounding of bytes, and where bytes are clipped half way."""
    info = replace(colour, crop_pct=0.8, crop_mode=crop_mode, interpolation=interpolation, mean=(0.25, 0.5, 0.75))
    grey = noise()[:, :, 0]
    Image.fromarray(grey).save(tmp_path / "8.png")
    Image.fromarray(grey.astype(np.uint16) * 257).save(tmp_path / "16.png")
    few, many = (Preparation(info).read(tmp_path / name) for name in ("8.png", "16.png"))
    assert many.shape == (3, 16, 16)
    assert (few - many).abs().mean() < 1 / 255
    assert (few - many).abs().max() < 0.06


def test_deep_pixels_feed_grey_models(tmp_path: Path, grey: ModelInfo) -> None:
    Image.fromarray(np.full((20, 20), 65535, np.uint16)).save(tmp_path / "a.png")
    assert torch.allclose(Preparation(grey).read(tmp_path / "a.png"), torch.ones(1, 16, 16))


def test_the_depth_of_values_is_the_users_word(tmp_path: Path, grey: ModelInfo) -> None:
    Image.fromarray(np.full((20, 20), 4095, np.uint16)).save(tmp_path / "a.png")
    plain, told = Preparation(grey), Preparation(replace(grey, bit_depth=12))
    assert plain.read(tmp_path / "a.png").mean() < -0.85
    assert torch.allclose(told.read(tmp_path / "a.png"), torch.ones(1, 16, 16))
    assert plain.notes() == (
        "images with 16 bits a channel: 1; the largest value of that depth is white, but none is above 4095: if they "
        "hold 12 bits, give --bit-depth 12",
    )
    assert told.notes() == ("images with 16 bits a channel: 1",)


def test_full_depth_leaves_no_doubt(tmp_path: Path, grey: ModelInfo) -> None:
    Image.fromarray(np.full((20, 20), 60000, np.uint16)).save(tmp_path / "a.png")
    prepare = Preparation(grey)
    for _ in range(2):
        prepare.read(tmp_path / "a.png")
    assert prepare.notes() == ("images with 16 bits a channel: 1; the largest value of that depth is white",)


def test_array_files_are_prepared_already(tmp_path: Path, colour: ModelInfo) -> None:
    info = replace(colour, input_shape=(12, 4, 4), mean=(0.5,) * 12, std=(0.5,) * 12)
    image = np.random.default_rng(0).random((12, 4, 4), np.float32)
    np.save(tmp_path / "a.npy", image)
    np.save(tmp_path / "raw.npy", np.full((4, 4, 12), 255, np.uint8))
    assert np.array_equal(Preparation(info).read(tmp_path / "a.npy"), image)
    assert torch.equal(Preparation(info).read(tmp_path / "raw.npy"), torch.ones(12, 4, 4))
    np.save(tmp_path / "several.npy", np.stack([image, image]))
    np.save(tmp_path / "small.npy", image[:3])
    (tmp_path / "broken.npy").write_bytes(b"")
    for name, reason in (("several", "2 images: expected one a file"), ("small", "3×4×4"), ("broken", "No data left")):
        with pytest.raises(Refused, match=reason):
            Preparation(info).read(tmp_path / f"{name}.npy")


def test_pictures_of_a_program(colour: ModelInfo) -> None:
    prepare = Preparation(colour)
    assert prepare(Image.new("RGB", (30, 20), (255, 255, 255))).shape == (3, 16, 16)
    prepare(Image.fromarray(np.full((20, 20), 9, np.uint16)))
    assert prepare.notes()[0].startswith("images with 16 bits a channel: some;")
    with pytest.raises(UserError, match="a PIL image of mode F is not used: values from 9 to 9: expected 0 to 1"):
        prepare(Image.fromarray(np.full((20, 20), 9, np.float32)))


def test_only_models_that_read_images_are_prepared_for(colour: ModelInfo) -> None:
    assert preparation(colour) is not None
    assert preparation(replace(colour, input_shape=(12, 4, 4))) is None
    assert preparation((3, 4, 4)) is None
    assert preparation(None) is None
