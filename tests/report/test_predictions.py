"""What every row did with each image: saved, read back, and refused where it is something else."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from fimaq_deploy import UserError
from fimaq_deploy.manifest import write_manifest
from fimaq_deploy.report.predictions import PREDICTIONS, Fingerprint, Key, LabelFingerprint, Predictions

MEAN, OTHER = Key("cpu", "boxes/left", "cosine"), Key("cpu", "boxes/left", "map")


def full() -> Predictions:
    return Predictions(
        "a fingerprint",
        {"cpu": np.array([3, -1, 2], np.int32)},
        np.array([3, 1, 2], np.int32),
        {MEAN: np.array([0.5, 0.25, 1.0], np.float32)},
        {OTHER: np.array([80.0, 81.0], np.float32)},
    )


@pytest.mark.parametrize("key", [MEAN, Key("cpu", "logits", "agreement"), Key("cpu", "a/b/c", "x")])
def test_a_key_reads_back_even_where_the_outputs_name_holds_a_slash(key: Key) -> None:
    assert Key.read(str(key)) == key


def test_predictions_read_back_as_they_were(tmp_path: Path) -> None:
    path, saved = tmp_path / PREDICTIONS, full()
    saved.save(path)
    found = Predictions.load(path)
    assert found.images == "a fingerprint"
    assert found.labels is not None and found.labels.tolist() == [3, 1, 2]
    for read, kept in ((found.rows, saved.rows), (found.means, saved.means), (found.resamples, saved.resamples)):
        assert dict(read).keys() == dict(kept).keys()
    assert found.rows["cpu"].tolist() == [3, -1, 2] and found.rows["cpu"].dtype == np.int32
    assert found.means[MEAN].tolist() == [0.5, 0.25, 1.0]
    assert found.resamples[OTHER].tolist() == [80.0, 81.0]


def test_without_labels_and_figures_it_is_what_the_first_release_wrote(tmp_path: Path) -> None:
    Predictions("x", {"cpu": np.arange(4, dtype=np.int64)[::-1]}).save(tmp_path / PREDICTIONS)
    found = Predictions.load(tmp_path / PREDICTIONS)
    assert (found.labels, found.means, found.resamples) == (None, {}, {})
    assert found.rows["cpu"].tolist() == [3, 2, 1, 0]


def test_figures_alone_are_predictions_too(tmp_path: Path) -> None:
    Predictions("x", means={MEAN: np.ones(2, np.float32)}).save(tmp_path / PREDICTIONS)
    assert Predictions.load(tmp_path / PREDICTIONS).rows == {}


def refused(path: Path, words: str) -> None:
    with pytest.raises(UserError, match=words) as error:
        Predictions.load(path)
    assert str(path) in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("tensors", "metadata"),
    [
        ({"cpu": np.zeros(3, np.int32)}, None),
        ({"cpu": np.zeros(3, np.int32)}, {"images": ""}),
        ({}, {"images": "x"}),
        ({"labels": np.zeros(3, np.int32)}, {"images": "x"}),
        ({"cpu": np.zeros(3, np.int32), "gpu": np.zeros(4, np.int32)}, {"images": "x"}),
        ({"cpu": np.zeros(3, np.int32), "labels": np.zeros(4, np.int32)}, {"images": "x"}),
    ],
)
def test_tensors_of_something_else_are_one_clear_line(
    tmp_path: Path, tensors: dict[str, np.ndarray], metadata: dict[str, str] | None
) -> None:
    path = tmp_path / PREDICTIONS
    save_file(tensors, path, metadata=metadata)
    refused(path, "holds no predictions of a build: build again to replace it")


@pytest.mark.parametrize("kept", [0, 5, -4])
def test_a_file_that_is_cut_off_is_one_clear_line(tmp_path: Path, kept: int) -> None:
    path = tmp_path / PREDICTIONS
    full().save(path)
    path.write_bytes(path.read_bytes()[:kept])
    refused(path, "cannot read .*; build again to replace it")


def test_a_file_that_is_not_there_is_one_clear_line(tmp_path: Path) -> None:
    refused(tmp_path / PREDICTIONS, "cannot read")


def test_a_file_that_its_build_did_not_write_is_refused(tmp_path: Path) -> None:
    path = tmp_path / PREDICTIONS
    full().save(path)
    write_manifest(tmp_path, {})
    assert Predictions.load(path).images == "a fingerprint"
    Predictions("another", full().rows).save(path)
    with pytest.raises(UserError):
        Predictions.load(path)


def test_a_fingerprint_is_the_sha_256_however_images_are_batched() -> None:
    images = np.random.default_rng(0).normal(size=(6, 2, 3)).astype(np.float32)
    whole, parts, turned = Fingerprint(), Fingerprint(), Fingerprint()
    whole.add(images)
    for part in (images[:1], images[1:4], images[4:]):
        parts.add(part)
    turned.add(images[::-1])
    assert str(whole) == str(parts) == hashlib.sha256(images.tobytes()).hexdigest()
    assert str(turned) != str(whole)


@pytest.mark.parametrize(
    "labels", [np.arange(6), np.arange(6 * 4 * 7.0).reshape(6, 4, 7), np.arange(96).reshape(6, 4, 4)]
)
def test_a_fingerprint_of_labels_is_of_all_that_they_say(labels: Any) -> None:
    found = [LabelFingerprint() for _ in range(5)]
    other = labels.copy()
    other[(5, *(-1,) * (labels.ndim - 1))] += 1
    found[0].add(labels)
    for part in (labels[:1], labels[1:4], labels[4:]):
        found[1].add(part)
    found[2].add(other)
    found[3].add(labels[::-1])
    found[4].add(None)
    whole, parts, changed, turned, none = map(str, found)
    assert whole == parts and len({whole, changed, turned, none}) == 4
    assert none == ""
