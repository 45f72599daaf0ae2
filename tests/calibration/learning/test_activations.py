from __future__ import annotations

import resource
from pathlib import Path

import pytest
import torch

from fimaq_deploy.calibration.learning.activations import ActivationStore


def test_tensors_within_the_budget_are_in_memory() -> None:
    with ActivationStore(budget_bytes=1000) as store:
        tensor = store.empty((10, 5))
        assert tensor.dtype == torch.float32 and tensor.shape == (10, 5)
        assert store.resident_bytes == 200
        store.release(tensor)
        assert store.resident_bytes == 0


def test_beyond_the_budget_they_are_files_that_vanish(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with ActivationStore(budget_bytes=250) as store:
        first, second = store.empty((10, 5)), store.empty((10, 5))
        assert store.resident_bytes == 200
        second.fill_(3)
        first.fill_(1)
        assert second.sum().item() == 150
        (file,) = tmp_path.glob("*/*.bin")
        assert file.stat().st_size == 200
        store.release(second)
        assert not list(tmp_path.glob("*/*.bin"))
        store.empty((100, 100)).zero_()
        assert list(tmp_path.glob("*/*.bin"))
    assert not list(tmp_path.iterdir())


def test_released_memory_is_used_again() -> None:
    with ActivationStore(budget_bytes=200) as store:
        for _ in range(5):
            tensor = store.empty((50,))
            assert store.resident_bytes == 200
            store.release(tensor)


def test_files_are_removed_when_the_work_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with pytest.raises(ZeroDivisionError), ActivationStore(budget_bytes=0) as store:
        store.empty((4,))
        _ = 1 / 0
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("budget", [0, 10**6])
def test_collect_concatenates_batches_of_any_size(budget: int) -> None:
    whole = torch.randn(11, 3, 2)
    with ActivationStore(budget_bytes=budget) as store:
        collected = store.collect(iter(whole.split(4)), 11)
        assert torch.equal(collected, whole)
        assert torch.equal(store.collect([whole.double()], 11), whole)


def test_collecting_copies() -> None:
    whole = torch.ones(2, 3)
    with ActivationStore() as store:
        collected = store.collect([whole], 2)
        whole.zero_()
        assert collected.sum().item() == 6


def test_a_disk_without_room_for_a_file_is_an_error_and_no_dead_process() -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large"), ActivationStore(budget_bytes=0) as store:
            store.empty((1000,))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
