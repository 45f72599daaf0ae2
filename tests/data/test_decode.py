"""Image files as they come from the field. What timm does is measured beside what we do."""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from fimaq_deploy.data.decode import (
    DEEP,
    DEEP_COLOUR,
    FLOATS,
    FRAMES,
    ROTATED,
    Refused,
    decode_file,
)

RAMP = np.linspace(0, 4095, 80 * 120).reshape(80, 120).astype("uint16")  # 12-bit data


def tiff(values: NDArray[Any], sample_format: int = 1, photometric: int = 1) -> bytes:
    """An uncompressed little-endian TIFF of one strip."""
    height, width = values.shape[:2]
    samples, bits = (values.shape[2] if values.ndim == 3 else 1), values.dtype.itemsize * 8
    data, start = values.astype(values.dtype.newbyteorder("<")).tobytes(), 8 + 2 + 12 * 10 + 4
    lists = struct.pack(f"<{samples}H", *[bits] * samples) + struct.pack(f"<{samples}H", *[sample_format] * samples)

    def tag(number: int, kind: int, count: int, value: int) -> bytes:
        return struct.pack("<HHII", number, kind, count, value)

    def tags(number: int, value: int, offset: int) -> bytes:
        return tag(number, 3, samples, value if samples == 1 else start + offset)

    entries = [
        tag(256, 3, 1, width),
        tag(257, 3, 1, height),
        tags(258, bits, 0),
        tag(259, 3, 1, 1),
        tag(262, 3, 1, photometric),
        tag(273, 4, 1, start + len(lists)),
        tag(277, 3, 1, samples),
        tag(278, 3, 1, height),
        tag(279, 4, 1, len(data)),
        tags(339, sample_format, 2 * samples),
    ]
    return b"II*\0" + struct.pack("<IH", 8, len(entries)) + b"".join(entries) + b"\0" * 4 + lists + data


def png16(values: NDArray[Any]) -> bytes:
    """A PNG of 16 bits a channel; Pillow itself writes only grey ones."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    height, width, kind = *values.shape[:2], {2: 0, 3: 2}[values.ndim]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    header = struct.pack(">IIBBBBB", width, height, 16, kind, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def decoded(path: Path, content: bytes | Image.Image, channels: int = 3, bits: int | None = None, **save: Any) -> Any:
    if isinstance(content, Image.Image):
        content.save(path, **save)
    else:
        path.write_bytes(content)
    return decode_file(path, channels, bits)


def refusal(path: Path, content: bytes | Image.Image, **options: Any) -> str:
    with pytest.raises(Refused) as caught:
        decoded(path, content, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# --- 8 bits: as timm ---


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "RGBA", "LA", "CMYK", "YCbCr", "1", "PA", "RGBX"])
def test_modes_of_8_bits_are_what_timm_makes_of_them(tmp_path: Path, mode: str, noise: Callable[..., Any]) -> None:
    alpha = Image.fromarray(noise()[:, :, :1].repeat(4, 2), "RGBA") if "A" in mode else Image.fromarray(noise())
    picture = alpha.convert("LA").convert("PA") if mode == "PA" else alpha.convert(mode)
    path = tmp_path / ("a.jpg" if mode in ("CMYK", "YCbCr") else "a.tiff" if mode in ("RGBX", "PA") else "a.png")
    found = decoded(path, picture)
    for channels, name in ((3, "RGB"), (1, "L")):
        with Image.open(path) as image:
            expected = np.asarray(image.convert(name))
        assert np.array_equal(np.asarray(decode_file(path, channels).image), expected)
    assert found.remarks == ()


def test_a_palette_with_transparency_and_no_warning(tmp_path: Path) -> None:
    picture = Image.new("P", (4, 4), 1)
    picture.putpalette([0, 0, 0, 200, 100, 50])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = decoded(tmp_path / "a.png", picture, transparency=bytes([0, 128]))
    assert np.asarray(found.image)[0, 0].tolist() == [200, 100, 50]


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp"])
def test_a_rotation_by_exif_is_not_applied_as_in_timm_and_said(tmp_path: Path, suffix: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    found = decoded(tmp_path / f"a.{suffix}", Image.new("RGB", (30, 20)), exif=exif)
    assert found.image.size == (30, 20)
    assert found.remarks == (ROTATED,)
    exif[0x0112] = 1
    assert decoded(tmp_path / f"b.{suffix}", Image.new("RGB", (30, 20)), exif=exif).remarks == ()


def test_the_rotation_of_a_tiff_is_applied_by_pillow_and_so_by_timm(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    found = decoded(tmp_path / "a.tiff", Image.new("RGB", (30, 20)), exif=exif)
    with Image.open(tmp_path / "a.tiff") as image:
        assert found.image.size == image.convert("RGB").size
    assert found.remarks == (() if found.image.size == (20, 30) else (ROTATED,))


@pytest.mark.parametrize("suffix", ["gif", "png", "webp", "tiff"])
def test_the_first_of_several_frames_is_read_and_said(tmp_path: Path, suffix: str) -> None:
    frames = [Image.new("RGB", (8, 8), (level,) * 3) for level in (0, 255)]
    found = decoded(tmp_path / f"a.{suffix}", frames[0], save_all=True, append_images=frames[1:])
    assert np.asarray(found.image).max() == 0
    assert found.remarks == (FRAMES,)


# --- more than 8 bits ---


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("suffix", ["png", "tiff"])
def test_16_bits_are_scaled_by_their_depth(tmp_path: Path, suffix: str, channels: int) -> None:
    full = (RAMP.astype(np.uint32) * 65535 // 4095).astype("uint16")
    found = decoded(tmp_path / f"a.{suffix}", Image.fromarray(full), channels)
    assert found.image.mode == "F"
    assert np.allclose(np.asarray(found.image), full / 257, atol=1e-4)
    assert (found.remarks, found.largest) == ((DEEP,), 65535)


def test_12_bits_in_16_keep_their_order_and_take_their_depth(tmp_path: Path) -> None:
    found = decoded(tmp_path / "a.png", Image.fromarray(RAMP))
    assert (np.diff(np.asarray(found.image).ravel()) >= 0).all()
    assert len(np.unique(np.asarray(found.image))) == len(np.unique(RAMP))
    assert np.asarray(found.image).max() == pytest.approx(4095 / 257)
    assert found.largest == 4095
    told = decode_file(tmp_path / "a.png", 3, 12)
    assert np.allclose(np.asarray(told.image), RAMP / 4095 * 255, atol=1e-4)
    assert "expected 0 to 1,023" in refusal(tmp_path / "b.png", Image.fromarray(RAMP), bits=10)


def test_the_depth_that_a_file_declares(tmp_path: Path) -> None:
    big_endian = decoded(tmp_path / "a.tiff", Image.fromarray(RAMP.astype(">u2")))
    assert np.allclose(np.asarray(big_endian.image), RAMP / 257, atol=1e-4)
    pgm = b"P5 120 80 4095\n" + RAMP.astype(">u2").tobytes()
    assert np.allclose(np.asarray(decoded(tmp_path / "a.pgm", pgm).image), RAMP / 4095 * 255, atol=0.01)
    inverted = decoded(tmp_path / "b.tiff", tiff(RAMP, photometric=0))
    assert np.allclose(np.asarray(inverted.image), 255 - RAMP / 257, atol=1e-4)


@pytest.mark.parametrize(("kind", "sample_format"), [("int16", 2), ("int32", 2), ("uint32", 1)])
def test_integers_whose_white_nothing_says_need_a_depth(tmp_path: Path, kind: str, sample_format: int) -> None:
    path = tmp_path / "a.tiff"
    reason = "integers whose white nothing says: give the depth of their values with --bit-depth"
    assert reason in refusal(path, tiff(RAMP.astype(kind), sample_format))
    assert np.allclose(np.asarray(decode_file(path, 1, 12).image), RAMP / 4095 * 255, atol=1e-4)
    negative = tiff(RAMP.astype("int32") - 5, 2)
    assert "values from -5 to 4,090: expected 0 to 4,095" in refusal(path, negative, bits=12)


def test_colours_of_16_bits_are_their_upper_8_and_that_is_said(tmp_path: Path) -> None:
    colours = np.stack([RAMP * 16, RAMP, 65535 - RAMP], -1)
    for path, content in ((tmp_path / "a.png", png16(colours)), (tmp_path / "a.tiff", tiff(colours, photometric=2))):
        found = decoded(path, content)
        assert np.array_equal(np.asarray(found.image), colours >> 8)
        assert found.remarks == (DEEP_COLOUR,)
        assert "convert it to 8 bits" in refusal(path, content, bits=12)


def test_floats_in_the_unit_interval(tmp_path: Path) -> None:
    unit = (RAMP / 4095).astype("float32")
    found = decoded(tmp_path / "a.tiff", Image.fromarray(unit))
    assert np.allclose(np.asarray(found.image), unit * 255, atol=1e-4)
    assert (found.remarks, found.largest) == ((FLOATS,), None)


@pytest.mark.parametrize(("change", "values"), [(lambda x: x * 2, "0 to 2"), (lambda x: x - 0.5, "-0.5 to 0.5")])
def test_floats_of_another_scale_are_refused_by_it(tmp_path: Path, change: Any, values: str) -> None:
    unit = change(RAMP / 4095).astype("float32")
    assert f"values from {values}: expected 0 to 1" in refusal(tmp_path / "a.tiff", Image.fromarray(unit))


def test_floats_that_are_no_numbers(tmp_path: Path) -> None:
    unit = (RAMP / 4095).astype("float32")
    unit[3, 3] = np.nan
    assert "values from nan to nan" in refusal(tmp_path / "a.tiff", Image.fromarray(unit))


# --- what is no image ---


def test_a_wrong_suffix_does_not_matter(tmp_path: Path) -> None:
    content = io.BytesIO()
    Image.new("RGB", (8, 8), (255, 0, 0)).save(content, "PNG")
    for name in ("a.jpg", "a.gif", "a", "a.txt"):
        assert np.asarray(decoded(tmp_path / name, content.getvalue()).image)[0, 0].tolist() == [255, 0, 0]


@pytest.mark.parametrize("suffix", ["jpg", "png", "gif", "tiff", "webp", "bmp", "avif"])
def test_files_cut_anywhere(tmp_path: Path, suffix: str, noise: Callable[..., Any]) -> None:
    content = io.BytesIO()
    Image.fromarray(noise(64, 64)).save(content, Image.registered_extensions()[f".{suffix}"])
    whole = content.getvalue()
    for length in (0, 1, 10, len(whole) // 3, len(whole) // 2):
        refusal(tmp_path / f"a.{suffix}", whole[:length])


@pytest.mark.parametrize("content", [b"", b"text", bytes(range(256)), b"\xff\xd8\xff\xe0", b"GIF89a", b"P6 9 9 255\n"])
def test_no_image_at_all(tmp_path: Path, content: bytes) -> None:
    refusal(tmp_path / "a.png", content)


def test_a_decompression_bomb_is_refused_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    picture = Image.new("L", (100, 100))
    picture.save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 6000)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert decode_file(tmp_path / "a.png", 3).image.size == (100, 100)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(Refused, match="more than 2,000 pixels, which Pillow refuses"):
        decode_file(tmp_path / "a.png", 3)


def test_programs_are_never_run_for_a_file(tmp_path: Path) -> None:
    (tmp_path / "a.eps").write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n")
    with pytest.raises(Refused, match="no image that Pillow opens"):
        decode_file(tmp_path / "a.eps", 3)


def test_other_numbers_of_channels(tmp_path: Path) -> None:
    assert "images feed 1 or 3 channels, the model reads 4" in refusal(
        tmp_path / "a.png", Image.new("RGBA", (8, 8)), channels=4
    )


def test_damaged_exif_costs_nothing(tmp_path: Path) -> None:
    found = decoded(tmp_path / "a.jpg", Image.new("RGB", (8, 8)), exif=b"Exif\0\0II*\0\xff\xff\xff\xff\x01")
    assert found.image.size == (8, 8)
