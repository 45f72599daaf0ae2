"""The reference is the builder's own preparation, which is timm's transform."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from fimaq_deploy.contract import INTERPOLATIONS, RULES
from fimaq_deploy.data.prepare import Preparation as Builder
from fimaq_deploy.errors import UserError
from fimaq_deploy.models.describe import ModelInfo
from fimaq_deploy.runtime.preprocessing import Preparation

IMAGENET = ModelInfo("m", (3, 224, 224), (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), "bicubic", 0.875, "center", 1000)


def both(info: ModelInfo, image: Any) -> tuple[Any, Any]:
    return Preparation(info.contract())(image), Builder(info)(image).numpy()


def photographs() -> list[Image.Image]:
    from sklearn.datasets import load_sample_images

    found = [Image.fromarray(np.asarray(image)) for image in load_sample_images().images]
    try:
        from skimage import data
    except ImportError:
        return found
    return found + [Image.fromarray(getattr(data, name)()) for name in ("astronaut", "chelsea", "coffee", "camera")]


@pytest.mark.parametrize("crop_mode", RULES)
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
def test_photographs_become_the_builders_numbers_bit_by_bit(crop_mode: str, interpolation: str) -> None:
    info = replace(IMAGENET, crop_mode=crop_mode, interpolation=interpolation)
    for image in photographs():
        for turned in (image, image.rotate(90, expand=True)):
            own, builders = both(info, turned)
            assert own.dtype == np.float32 and np.array_equal(own, builders)


@settings(max_examples=60, deadline=None)
@given(
    size=st.tuples(st.integers(1, 70), st.integers(1, 70)),
    sides=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    crop_pct=st.sampled_from([1.0, 0.9, 0.875, 0.5]),
    crop_mode=st.sampled_from(sorted(RULES)),
    interpolation=st.sampled_from(INTERPOLATIONS),
    grey=st.booleans(),
)
def test_any_size_becomes_the_builders_numbers(
    size: tuple[int, int], sides: tuple[int, int], crop_pct: float, crop_mode: str, interpolation: str, grey: bool
) -> None:
    channels = 1 if grey else 3
    mean, std = (0.4,) * channels, (0.3,) * channels
    info = ModelInfo("m", (channels, *sides), mean, std, interpolation, crop_pct, crop_mode, 2)
    pixels = np.random.default_rng(size[0]).integers(0, 256, (*size, 3), np.uint8)
    try:
        _, builders = both(info, Image.fromarray(pixels))
    except ValueError:  # a side that the builder rounds to 0
        return
    assert np.array_equal(Preparation(info.contract())(Image.fromarray(pixels)), builders)


@pytest.mark.parametrize("crop_mode", RULES)
def test_sixteen_bits_become_the_builders_numbers(crop_mode: str, tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 2**16, (50, 70), np.uint16)
    Image.fromarray(values).save(tmp_path / "deep.png")
    info = replace(IMAGENET, input_shape=(3, 32, 32), crop_mode=crop_mode, bit_depth=16)
    own, builders = both(info, tmp_path / "deep.png")
    assert np.abs(own - builders).max() <= 1e-6


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "LA", "1", "CMYK", "YCbCr"])
def test_every_mode_becomes_the_builders_numbers(mode: str, noise: Callable[..., Any], colour: ModelInfo) -> None:
    own, builders = both(colour, Image.fromarray(noise()).convert("L" if mode == "LA" else "RGB").convert(mode))
    assert np.array_equal(own, builders)


def test_pixels_are_as_good_as_an_image(noise: Callable[..., Any], colour: ModelInfo, grey: ModelInfo) -> None:
    prepare = Preparation(colour.contract())
    assert np.array_equal(prepare(noise()), prepare(Image.fromarray(noise())))
    assert np.array_equal(Preparation(grey.contract())(noise()[..., :1]), Preparation(grey.contract())(noise()[..., 0]))


def test_a_file_that_normalises_itself_gets_the_pixels_after_the_crop(noise: Callable[..., Any]) -> None:
    contract = replace(IMAGENET, input_shape=(3, 16, 16)).contract()
    pixels = Preparation(replace(contract, pixels=True))(noise())
    assert pixels.dtype == np.uint8 and pixels.shape == (16, 16, 3)
    mean, std = (np.asarray(numbers, np.float32) for numbers in (contract.mean, contract.std))
    floats = ((pixels.astype(np.float32) / np.float32(255) - mean) / std).transpose(2, 0, 1)
    assert np.array_equal(floats, Preparation(contract)(noise()))


REFUSED: dict[str, tuple[Callable[[Path], Any], str]] = {
    "no file": (lambda place: place / "no.png", "no such file"),
    "a number": (lambda place: 7, "is a int: expected a path"),
    "floats": (lambda place: np.zeros((8, 8, 3), np.float32), "pixels are float32"),
    "four channels": (lambda place: np.zeros((8, 8, 4), np.uint8), "expected uint8"),
    "nothing": (lambda place: np.zeros((0, 8, 3), np.uint8), "at least one pixel"),
    "a ribbon": (lambda place: np.zeros((1, 60000, 3), np.uint8), "crop it first"),
}


@pytest.mark.parametrize("make,message", REFUSED.values(), ids=REFUSED)
def test_what_is_no_image_is_refused_in_one_line(make: Callable[[Path], Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"(?i){message}"):
        Preparation(replace(IMAGENET, input_shape=(3, 384, 384)).contract())(make(tmp_path))


def test_a_truncated_file_and_a_bomb_are_refused(
    tmp_path: Path, noise: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, colour: ModelInfo
) -> None:
    Image.fromarray(noise()).save(tmp_path / "whole.jpg")
    (tmp_path / "cut.jpg").write_bytes((tmp_path / "whole.jpg").read_bytes()[:400])
    with pytest.raises(UserError, match=r"cut\.jpg"):
        Preparation(colour.contract())(tmp_path / "cut.jpg")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(UserError, match="which Pillow refuses"):
        Preparation(colour.contract())(tmp_path / "whole.jpg")


def test_channels_that_no_image_has_are_refused(noise: Callable[..., Any], colour: ModelInfo) -> None:
    four = replace(colour, input_shape=(4, 8, 8), mean=(0.5,) * 4, std=(0.5,) * 4)
    with pytest.raises(UserError, match="4 channels"):
        Preparation(four.contract())(noise())
