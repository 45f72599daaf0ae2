"""The one door: the same images through every entrance are the same to the model."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

import fimaq_deploy as fd
from fimaq_deploy.data.intake import as_source, reads_of
from fimaq_deploy.data.source import ImageSource
from fimaq_deploy.errors import UserError
from fimaq_deploy.models.describe import ModelInfo

IMAGES = torch.rand(6, 3, 16, 16, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(6) % 3


class Numbered(Dataset[Any]):
    """Pairs by number, that never says where it ends when iterated."""

    def __len__(self) -> int:
        return 6

    def __getitem__(self, index: int) -> Any:
        return IMAGES[index % 6], int(LABELS[index % 6])


class Streamed(IterableDataset[Any]):
    """The same pairs as a stream that knows its length."""

    def __len__(self) -> int:
        return 6

    def __iter__(self) -> Iterator[Any]:
        return iter(zip(IMAGES, LABELS, strict=True))


def listed(pairs: list[Any]) -> list[Any]:
    """Images and labels as lists, as a DataLoader has them that does not stack."""
    return [list(each) for each in zip(*pairs, strict=True)]


ENTRANCES: dict[str, Callable[[Path], Any]] = {
    "a pair": lambda _: (IMAGES, LABELS),
    "a pair of arrays in a list": lambda _: [IMAGES.numpy(), LABELS.numpy()],
    "a mapping": lambda _: {"pixel_values": IMAGES, "labels": LABELS},
    "a list of pairs": lambda _: [(IMAGES[:4], LABELS[:4]), (IMAGES[4:], LABELS[4:])],
    "a list of mappings": lambda _: [
        {"image": IMAGES[:5], "label": LABELS[:5]},
        {"image": IMAGES[5], "label": LABELS[5]},
    ],
    "a DataLoader": lambda _: DataLoader(TensorDataset(IMAGES, LABELS), batch_size=4),
    "a DataLoader of lists": lambda _: DataLoader(Numbered(), batch_size=4, collate_fn=listed),
    "a DataLoader of mappings": lambda _: DataLoader(
        [{"pixel_values": image, "labels": label} for image, label in zip(IMAGES, LABELS, strict=True)], batch_size=4
    ),
    "a data set": lambda _: Numbered(),
    "a data set of tensors": lambda _: TensorDataset(IMAGES, LABELS),
    "a stream": lambda _: Streamed(),
    "a generator": lambda _: (pair for pair in [(IMAGES[:1], LABELS[:1]), (IMAGES[1:], LABELS[1:])]),
    "a .npz file": lambda folder: folder / "images.npz",
    "the name of a .npz file": lambda folder: str(folder / "images.npz"),
    "channels last": lambda _: (IMAGES.permute(0, 2, 3, 1).numpy(), LABELS),
    "double precision": lambda _: (IMAGES.double().numpy(), LABELS.int()),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    np.savez(tmp_path / "images.npz", images=IMAGES.numpy(), labels=LABELS.numpy())
    return tmp_path


@pytest.mark.parametrize("entrance", ENTRANCES)
def test_every_entrance_gives_the_same_images(entrance: str, folder: Path, colour: ModelInfo) -> None:
    source = as_source(ENTRANCES[entrance](folder), colour)
    images, labels = zip(*source.batches(4), strict=True)
    assert torch.equal(torch.cat(images), IMAGES)
    assert torch.cat(labels).tolist() == LABELS.tolist()


@pytest.mark.parametrize("entrance", ENTRANCES)
def test_labels_are_left_alone_where_nobody_wants_them(entrance: str, folder: Path, colour: ModelInfo) -> None:
    source = as_source(ENTRANCES[entrance](folder), colour, keep_labels=False)
    assert not source.labelled
    assert all(batch.labels is None for batch in source.batches())


def test_evaluate_takes_what_the_door_takes(folder: Path, tiny_vit: Callable[..., Any]) -> None:
    model = tiny_vit()
    expected = fd.evaluate(model, IMAGES, labels=LABELS.tolist())
    for entrance in ENTRANCES.values():
        found = fd.evaluate(model, entrance(folder))
        assert found.predictions.tolist() == expected.predictions.tolist()
        assert found.top1 == expected.top1


def test_files_and_pictures_are_prepared_alike(colour: ModelInfo, tmp_path: Path, noise: Callable[..., Any]) -> None:
    picture = Image.fromarray(noise())
    picture.save(tmp_path / "a.png")
    expected = as_source(tmp_path, colour).take(1)
    for given in (tmp_path / "a.png", picture, [picture], [tmp_path / "a.png"], [(picture, 1)], [{"image": picture}]):
        assert torch.equal(as_source(given, colour).take(1), expected)


def test_a_data_set_is_drawn_from_by_the_seed(colour: ModelInfo) -> None:
    def first(seed: int) -> Any:
        return as_source(Numbered(), colour, limit=3, seed=seed).take(9)

    assert first(1).shape == (3, 3, 16, 16)
    assert torch.equal(first(1), first(1))
    assert not torch.equal(first(1), first(2))
    assert torch.equal(as_source(IMAGES, colour, limit=3).take(9), IMAGES)


def test_a_source_is_returned_as_it_is() -> None:
    source = as_source(IMAGES)
    assert as_source(source) is source
    with pytest.raises(UserError, match="labels beside images of type Arrays"):
        as_source(source, labels=[1])


def test_labels_beside_an_array() -> None:
    assert as_source(IMAGES, labels=LABELS).labelled
    for labels, reason in (([1, 2], "expected 6 numbers"), ("abcdef", "expected 6 numbers")):
        with pytest.raises(UserError, match=reason):
            as_source(IMAGES, labels=labels)
    with pytest.raises(UserError, match="give pairs"):
        as_source([IMAGES], labels=LABELS)


@pytest.mark.parametrize("given", [3, None, object(), b"bytes", 2.5, len])
def test_what_holds_no_images(given: Any) -> None:
    with pytest.raises(UserError, match=f"images of type {type(given).__name__}: expected an array"):
        as_source(given)


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ("", "an empty path"),
        ("absent", "no images at absent: expected a folder, an image, or a file of arrays"),
        ("x" * 300, "file name too long"),
        ("a\0b", "no images at"),
        ("a/" * 3000, "file name too long"),
    ],
)
def test_paths_that_lead_nowhere(given: str, reason: str, colour: ModelInfo) -> None:
    with pytest.raises(UserError, match=reason) as caught:
        as_source(given, colour)
    assert len(str(caught.value)) < 300


def test_files_need_the_model(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="preparing them needs the model"):
        as_source(tmp_path, (3, 16, 16))


def test_what_a_predictor_reads(tiny_vit: Callable[..., Any]) -> None:
    class Engine:
        input_shape = ("batch", 3, 16, 16)

    info = reads_of(tiny_vit())
    assert isinstance(info, ModelInfo)
    assert info.input_shape == (3, 16, 16)
    assert reads_of(Engine()) == (3, 16, 16)
    assert reads_of(len) is None
    assert reads_of(torch.nn.Linear(1, 1)) is None


def test_an_empty_data_set(colour: ModelInfo) -> None:
    class Nothing(Numbered):
        def __len__(self) -> int:
            return 0

    source: ImageSource = as_source(Nothing(), colour)
    with pytest.raises(UserError, match="yields nothing"):
        source.take(1)


@pytest.mark.parametrize("name", ["a.png", "a.npy", "a"])
def test_a_pipe_or_a_device_is_not_waited_for(name: str, tmp_path: Path, colour: ModelInfo) -> None:
    os.mkfifo(tmp_path / name)
    for path in (tmp_path / name, "/dev/zero", "/dev/null"):
        with pytest.raises(UserError, match="cannot be read again"):
            as_source(path, colour)
