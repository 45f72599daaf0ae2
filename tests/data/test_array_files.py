from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from fimaq_deploy.data.intake import as_source
from fimaq_deploy.errors import UserError

IMAGES = np.arange(6 * 12 * 4 * 4, dtype=np.float32).reshape(6, 12, 4, 4) / 100
LABELS = np.array([5, 4, 3, 2, 1, 0])
SHAPE = (12, 4, 4)


def write(folder: Path, suffix: str) -> Path:
    path = folder / f"images{suffix}"
    if suffix == ".npy":
        np.save(path, IMAGES)
    elif suffix == ".npz":
        np.savez(path, images=IMAGES, labels=LABELS)
    else:
        save_file({"images": IMAGES, "labels": LABELS}, path)
    return path


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".safetensors"])
def test_images_and_labels_of_a_file(tmp_path: Path, suffix: str) -> None:
    source = as_source(write(tmp_path, suffix), SHAPE)
    assert source.description == f"file {tmp_path}/images{suffix}"
    assert (source.count, source.labelled) == (6, suffix != ".npy")
    images, labels = zip(*source.batches(4), strict=True)
    assert np.array_equal(torch.cat(images), IMAGES)
    assert suffix == ".npy" or torch.cat(labels).tolist() == LABELS.tolist()


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".safetensors"])
def test_a_limit_draws_images_with_their_labels(tmp_path: Path, suffix: str) -> None:
    path = write(tmp_path, suffix)
    first, second = (as_source(path, SHAPE, limit=4, seed=seed) for seed in (1, 2))
    assert first.count == 4
    assert not torch.equal(first.take(4), second.take(4))
    for batch in first.batches(3):
        rows = [int(image[0, 0, 0] * 100) // (12 * 16) for image in batch.images]
        assert batch.labels is None or batch.labels.tolist() == LABELS[rows].tolist()


def test_a_npy_file_is_mapped(tmp_path: Path) -> None:
    source: Any = as_source(write(tmp_path, ".npy"), SHAPE)
    assert isinstance(source.images, np.memmap)


def test_names_are_found_by_what_they_are(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", IMAGES, LABELS)
    source = as_source(tmp_path / "a.npz", SHAPE)
    assert (source.count, source.labelled) == (6, True)


def message(path: Path, **options: Any) -> str:
    with pytest.raises(UserError) as caught:
        as_source(path, SHAPE, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".safetensors"])
@pytest.mark.parametrize("content", [b"", b"no arrays", bytes(range(256)) * 8, b"PK\x03\x04" + bytes(100)])
def test_files_that_are_no_arrays(tmp_path: Path, suffix: str, content: bytes) -> None:
    path = tmp_path / f"a{suffix}"
    path.write_bytes(content)
    assert f"{path} cannot be read as arrays (" in message(path)


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".safetensors"])
def test_truncated_files(tmp_path: Path, suffix: str) -> None:
    path = write(tmp_path, suffix)
    path.write_bytes(path.read_bytes()[:-700])
    assert "cannot be read as arrays" in message(path)


def test_python_objects_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.array([{"x": 1}], object), allow_pickle=True)
    assert "cannot be read as arrays" in message(tmp_path / "a.npy")
    np.savez(tmp_path / "a.npz", images=np.array([{"x": 1}], object))
    assert "cannot be read as arrays" in message(tmp_path / "a.npz")


def test_files_without_images(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", LABELS)
    assert "holds no images: expected an array (N, C, H, W)" in message(tmp_path / "a.npy")
    np.savez(tmp_path / "a.npz", labels=LABELS)
    assert "names labels: expected 'images' or 'pixel_values'" in message(tmp_path / "a.npz")
    np.savez(tmp_path / "b.npz", images=IMAGES, labels=LABELS[:3])
    assert "labels are int64 (3,): expected 6 numbers" in message(tmp_path / "b.npz")
    assert as_source(tmp_path / "b.npz", SHAPE, keep_labels=False).count == 6


def test_images_of_another_shape(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", IMAGES[:, :3])
    assert "images of 3×4×4: expected 12×4×4" in message(tmp_path / "a.npy")
