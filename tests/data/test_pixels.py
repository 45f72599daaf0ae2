from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from fimaq_deploy.data.pixels import Pixels
from fimaq_deploy.errors import UserError
from fimaq_deploy.models.describe import ModelInfo


def message(images: Any, reads: Any = None) -> str:
    with pytest.raises(UserError) as caught:
        Pixels(reads)(images, "images")
    assert "\n" not in str(caught.value)
    return str(caught.value)


def pixels(*shape: int) -> torch.Tensor:
    return torch.arange(float(np.prod(shape))).reshape(shape)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_floats_of_any_width_are_taken_as_they_are(dtype: torch.dtype) -> None:
    given = pixels(2, 3, 4, 4) / 8
    found = Pixels()(given.to(dtype), "images")
    assert found.dtype == torch.float32
    assert torch.equal(found, given)


def test_numpy_arrays_of_any_layout() -> None:
    given = pixels(2, 3, 4, 4).numpy()
    for array in (
        given[::-1][::-1],
        given.astype(">f4"),
        np.asfortranarray(given),
        np.broadcast_to(given, given.shape),
    ):
        assert np.array_equal(Pixels()(array, "images"), given)


def test_uint8_are_raw_pixels(colour: ModelInfo) -> None:
    info = replace(colour, mean=(0.1, 0.2, 0.3), std=(0.5, 0.6, 0.7))
    raw = torch.randint(0, 256, (2, 3, 16, 16), dtype=torch.uint8)
    expected = (raw / 255 - torch.tensor(info.mean).view(-1, 1, 1)) / torch.tensor(info.std).view(-1, 1, 1)
    convert = Pixels(info)
    assert torch.allclose(convert(raw, "images"), expected)
    assert torch.allclose(convert(raw.permute(0, 2, 3, 1).numpy(), "images"), expected)
    assert convert.notes[0].startswith("uint8 pixels were divided by 255 and normalised with mean (0.1, 0.2, 0.3)")


def test_uint8_without_a_known_model_is_refused() -> None:
    raw = torch.zeros(1, 3, 4, 4, dtype=torch.uint8)
    assert message(raw, (3, 4, 4)).startswith("images is uint8: expected floats, scaled and normalised")
    assert "mean and standard deviation are not known here" in message(raw)


@pytest.mark.parametrize("dtype", [np.int64, np.uint16, np.int8, np.bool_, np.complex64, np.longdouble])
def test_other_types_are_refused(dtype: type, colour: ModelInfo) -> None:
    assert f"images is {np.dtype(dtype)}: expected floats" in message(np.ones((1, 3, 16, 16), dtype), colour)


def test_channels_last_is_recognised_where_the_shape_says_so() -> None:
    last = pixels(2, 4, 6, 3) / 100
    convert = Pixels((3, 4, 6))
    assert torch.equal(convert(last, "images"), last.permute(0, 3, 1, 2))
    assert convert.notes == ["arrays with their channels last were transposed to (N, C, H, W)"]
    cube = pixels(2, 3, 3, 3)
    assert torch.equal(Pixels((3, 3, 3))(cube, "images"), cube)
    assert Pixels()(last, "images").shape == last.shape


def test_grey_images_need_no_axis_for_their_channel() -> None:
    convert = Pixels((1, 4, 6))
    assert convert(pixels(5, 4, 6), "images").shape == (5, 1, 4, 6)
    assert convert(pixels(4, 6), "images").shape == (1, 1, 4, 6)
    assert convert(pixels(1, 4, 6), "images").shape == (1, 1, 4, 6)


def test_one_image_is_a_batch_of_one() -> None:
    assert Pixels((3, 4, 6))(pixels(3, 4, 6), "images").shape == (1, 3, 4, 6)


@pytest.mark.parametrize("channels", range(1, 17))
def test_any_number_of_channels(channels: int) -> None:
    info = ModelInfo("m", (channels, 4, 6), (0.5,) * channels, (0.5,) * channels, "bicubic", 1.0, "center", 3)
    raw = np.full((2, 4, 6, channels), 255, np.uint8)
    assert torch.equal(Pixels(info)(raw, "images"), torch.ones(2, channels, 4, 6))


def test_the_first_image_decides_where_nothing_is_known() -> None:
    convert = Pixels()
    convert(pixels(1, 3, 8, 8), "batch 0")
    with pytest.raises(UserError, match="batch 1 holds images of 3×8×6: expected 3×8×8, resize them first"):
        convert(pixels(1, 3, 8, 6), "batch 1")


def test_another_shape_than_the_model_reads() -> None:
    assert "images holds images of 1×4×4: expected 3×4×4" in message(pixels(1, 1, 4, 4), (3, 4, 4))


def test_wrong_rank_and_no_image() -> None:
    assert message(pixels(2, 3, 4, 4, 1)) == "images has shape (2, 3, 4, 4, 1): expected 4 axes (N, C, H, W)"
    assert message(np.float32(3)).startswith("images is a float32: expected an array or tensor")
    assert message(np.array(3.0)).startswith("images has shape")
    assert message(pixels(0, 3, 4, 4)) == "images has size 0: expected at least one image"


@pytest.mark.parametrize("value", [float("nan"), float("-inf")])
def test_pixels_that_are_not_finite(value: float) -> None:
    images = pixels(4, 1, 2, 2)
    images[2, 0, 1, 1] = value
    assert message(images) == "images: 1 of 4 images hold NaN or infinite pixels; remove or repair them"


def test_floats_that_look_like_raw_pixels_are_noted_once() -> None:
    convert = Pixels()
    for largest in (255.0, 254.0, 1.0):
        convert(torch.full((1, 3, 4, 4), largest), "images")
    assert convert.notes == [
        "float images reach 255: floats are taken as they are, so normalise them as the model was trained"
    ]
