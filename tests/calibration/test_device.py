"""What the host and a device of which nothing is known offer. `test_second_device` stands in for a GPU."""

from __future__ import annotations

import pytest
import torch

from fimaq_deploy.calibration.device import Accelerator, Cuda, Host, is_host, of

HOST, UNKNOWN = torch.device("cpu"), torch.device("meta")


@pytest.mark.parametrize(
    ("device", "kind", "records", "processes"),
    [
        ("cpu", Host, False, "gloo"),
        ("cuda", Cuda, True, "nccl"),
        ("cuda:3", Cuda, True, "nccl"),
        ("mps", Accelerator, False, "gloo"),
        ("meta", Accelerator, False, "gloo"),
    ],
)
def test_a_device_is_known_by_its_kind(device: str, kind: type[Accelerator], records: bool, processes: str) -> None:
    found = of(torch.device(device))
    assert type(found) is kind and found.device == torch.device(device)
    assert (found.records, found.tensor_cores, found.processes) == (records, records, processes)
    assert is_host(torch.device(device)) == (kind is Host)


def test_the_host_keeps_tensors_where_they_are() -> None:
    tensor = torch.arange(3.0)
    assert of(HOST).send(tensor) is tensor
    assert of(HOST).send_aside(tensor)() is tensor


def test_an_unknown_device_copies_at_once() -> None:
    there = of(UNKNOWN).send(torch.zeros(2, 3))
    assert there.device.type == "meta" and there.shape == (2, 3)
    take = of(UNKNOWN).send_aside(torch.zeros(4))
    assert take() is take() and take().device.type == "meta"


@pytest.mark.parametrize("device", [HOST, UNKNOWN])
def test_where_nothing_is_known_nothing_is_pinned_or_recorded(device: torch.device) -> None:
    place, calls = of(device), []
    memory = place.host_memory([2, 5])
    assert (memory.shape, memory.dtype, memory.device.type) == ((2, 5), torch.float32, "cpu")
    assert place.spare_bytes() == 0
    assert place.warm_up(lambda: calls.append(1) or "result") == "result" and calls == [1]
    with pytest.raises(RuntimeError, match=f"^steps on {device} cannot be recorded$"):
        place.record(lambda: calls.append(2))
    assert calls == [1], "a step that cannot be recorded does not run either"
    place.forget()
    place.select()


@pytest.mark.parametrize("device", [HOST, UNKNOWN])
def test_the_callers_random_numbers_stay(device: torch.device) -> None:
    before = torch.get_rng_state()
    with of(device).own_randomness():
        torch.manual_seed(torch.initial_seed() + 1)
        torch.rand(3)
        assert not torch.equal(torch.get_rng_state(), before)
    assert torch.equal(torch.get_rng_state(), before)
