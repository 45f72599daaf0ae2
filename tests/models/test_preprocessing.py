from __future__ import annotations

from typing import Any

import pytest
import timm

from fimaq_deploy.errors import UserError
from fimaq_deploy.models.describe import describe_model
from fimaq_deploy.models.preprocessing import Preprocessing, image_size, numbers


def test_what_is_said_takes_the_place_of_what_the_model_has() -> None:
    model = timm.create_model("vit_tiny_patch16_224", img_size=32)
    plain = describe_model(model)
    said = Preprocessing(mean=(0.5,), std=(0.1, 0.2, 0.3), interpolation="bilinear", crop_pct=0.75, bit_depth=12)
    info = describe_model(model, preprocessing=said)
    assert (info.mean, info.std) == ((0.5, 0.5, 0.5), (0.1, 0.2, 0.3))
    assert (info.interpolation, info.crop_pct, info.crop_mode, info.bit_depth) == ("bilinear", 0.75, "center", 12)
    assert describe_model(model, preprocessing=Preprocessing()) == plain
    assert info.preprocessing() == {
        "channels": 3,
        "height": 32,
        "width": 32,
        "pixel_scale": 1 / 255,
        "mean": (0.5, 0.5, 0.5),
        "std": (0.1, 0.2, 0.3),
        "interpolation": "bilinear",
        "crop_pct": 0.75,
        "crop_mode": "center",
        "bit_depth": 12,
    }


def test_a_mean_for_another_number_of_channels() -> None:
    model = timm.create_model("vit_tiny_patch16_224", img_size=32, in_chans=4)
    with pytest.raises(UserError, match="--mean has 3 numbers, the model reads 4 channels: expected 1 or 4"):
        describe_model(model, preprocessing=Preprocessing(mean=(0.1, 0.2, 0.3)))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *[("mean", (value,)) for value in (float("nan"), float("inf"), -1e9)],
        *[("std", (value,)) for value in (0.0, -0.5, float("nan"), float("inf"), 1e-30)],
        *[("crop_pct", value) for value in (0.0, -1.0, 1.5, float("nan"))],
        *[("bit_depth", value) for value in (0, 7, 64)],
        *[("interpolation", value) for value in ("cubic", "", "random", "BICUBIC")],
        *[("crop_mode", value) for value in ("centre", "")],
    ],
)
def test_values_that_no_image_can_be_prepared_with(field: str, value: Any) -> None:
    with pytest.raises(UserError) as caught:
        Preprocessing(**{field: value})
    assert "\n" not in str(caught.value)


def test_numbers_as_they_are_written() -> None:
    assert numbers("--mean", "0.485,0.456,0.406") == (0.485, 0.456, 0.406)
    assert numbers("--mean", "0.5") == (0.5,)
    assert numbers("--mean", " 1e-1, 2 3 ") == (0.1, 2.0, 3.0)
    assert numbers("--mean", [0.5, 1]) == (0.5, 1)
    assert numbers("--mean", None) is None


@pytest.mark.parametrize("text", ["", ",", "a", "0.5;0.5", "0.5,,x", "[0.5]"])
def test_no_numbers(text: str) -> None:
    with pytest.raises(UserError, match=r"--std .*: expected numbers such as"):
        numbers("--std", text)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("384", (384, 384)),
        ("256x192", (256, 192)),
        ("256×192", (256, 192)),
        (64, (64, 64)),
        ((32, 48), (32, 48)),
        (None, None),
    ],
)
def test_image_sizes(text: Any, size: Any) -> None:
    assert image_size(text) == size


@pytest.mark.parametrize(
    "text", ["", "x", "256x", "1x2x3", "-5", "0", "1e3", "99999", "256*192", (), (1, 2, 3), "٣٨٤x1" * 50]
)
def test_no_image_size(text: Any) -> None:
    with pytest.raises(UserError, match="--image-size"):
        image_size(text)
