"""Any folder of images at all is a source of finite images or one line, and what is left out is counted."""

from __future__ import annotations

import io
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from fimaq_deploy.data.intake import as_source
from fimaq_deploy.errors import UserError
from fimaq_deploy.models.describe import ModelInfo

INFO = ModelInfo("a model", (3, 8, 8), (0.5,) * 3, (0.5,) * 3, "bilinear", 1.0, "center", 4)


def picture(kind: str, mode: str, size: tuple[int, int]) -> bytes:
    """An image file of some format and mode, where Pillow writes that."""
    array = np.random.default_rng(0).integers(0, 255, (size[1], size[0]), np.uint8)
    image = Image.fromarray(array)
    image = Image.fromarray(array.astype(np.uint16) * 257) if mode == "I;16" else image.convert(mode)
    file = io.BytesIO()
    try:
        image.save(file, kind)
    except (OSError, ValueError, KeyError):
        return b""
    return file.getvalue()


def array_file(kind: str, dtype: str, shape: tuple[int, ...]) -> bytes:
    array, file = np.zeros(shape, dtype), io.BytesIO()
    if kind == "npy":
        np.save(file, array)
    else:
        np.savez(file, images=array)
    return file.getvalue()


formats = st.sampled_from(["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM", "ICO"])
modes = st.sampled_from(["L", "RGB", "RGBA", "P", "1", "CMYK", "LA", "I;16", "F", "I"])
sides = st.integers(1, 20)
pictures = st.builds(picture, formats, modes, st.tuples(sides, sides))
shapes = st.lists(st.integers(0, 9), max_size=4).map(tuple) | st.sampled_from([(2, 3, 8, 8), (3, 8, 8), (2, 8, 8, 3)])
dtypes = st.sampled_from(["uint8", "float32", "float64", "int64", "bool", "uint16", "complex64", "U3"])
arrays = st.builds(array_file, st.sampled_from(["npy", "npz"]), dtypes, shapes)
contents = pictures | pictures.map(lambda data: data[: len(data) // 2]) | arrays | st.binary(max_size=40)
letters = st.text("ab01é .-_\n%[]", min_size=1, max_size=6).filter(lambda name: name.strip(".") != "")
endings = st.sampled_from([".png", ".jpg", ".tif", ".npy", ".npz", ".txt", "", ".PNG", ".safetensors"])
names = st.builds(str.__add__, letters, endings)
links = st.sampled_from([".", "..", "missing", "a", "/dev/null"])
# What stands at a name: a file, a link, or a folder.
entries: Any = st.recursive(contents | links, lambda inner: st.dictionaries(names, inner, max_size=3), max_leaves=5)
trees = st.dictionaries(names, entries, max_size=4)


def grow(folder: Path, tree: dict[str, Any]) -> None:
    for name, found in tree.items():
        place = folder / name
        try:
            if isinstance(found, dict):
                place.mkdir()
                grow(place, found)
            elif isinstance(found, str):
                place.symlink_to(found)
            else:
                place.write_bytes(found)
        except FileExistsError:  # a file system that does not tell letters apart
            pass


def is_read_or_refused(path: Path, labelled: bool, limit: int | None) -> None:
    try:
        source = as_source(path, INFO, keep_labels=labelled, limit=limit)
        seen = 0
        for batch in source.batches(3):
            assert batch.images.dtype == torch.float32 and tuple(batch.images.shape[1:]) == INFO.input_shape
            assert batch.images.isfinite().all()
            assert batch.labels is None or len(batch.labels) == len(batch.images)
            seen += len(batch.images)
        assert seen and (limit is None or seen <= limit)
        assert source.count is None or source.count == seen
        assert all("\n" not in note for note in source.notes)
    except UserError as error:
        assert "\n" not in str(error) and 10 < len(str(error)) < 1200


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(trees, st.booleans(), st.none() | st.integers(1, 3))
def test_any_folder_is_read_or_refused_in_one_line(tree: dict[str, Any], labelled: bool, limit: int | None) -> None:
    with TemporaryDirectory() as name:
        root = Path(name) / "above" / "root"  # links upwards end in nothing but this
        root.mkdir(parents=True)
        grow(root, tree)
        before = sorted(root.iterdir())
        is_read_or_refused(root, labelled, limit)
        assert sorted(root.iterdir()) == before


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(names, contents, st.booleans())
def test_any_file_is_read_or_refused_in_one_line(name: str, content: bytes, labelled: bool) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_bytes(content)
        is_read_or_refused(path, labelled, None)
