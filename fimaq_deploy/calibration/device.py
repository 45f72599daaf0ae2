"""What a device offers beside computing: memory to keep activations in, copies on the side, recorded steps.

The one place that knows CUDA. Everything else asks `of(device)`, or whether a device is the host (`is_host`), never
what it is called. A device of another kind gets `Accelerator`, which is right and slow: nothing is pinned, copied on
the side or recorded.

Run on an H100 (tests/calibration/test_cuda.py); elsewhere tests replace it by a device that computes on the CPU and
keeps a GPU's rules.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from functools import cache
from itertools import chain
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

T = TypeVar("T")


def place_of(module: nn.Module) -> torch.device:
    """Where a module computes. What has no numbers of its own has an empty buffer that says so."""
    return next(chain(module.parameters(), module.buffers())).device


def is_host(device: torch.device) -> bool:
    """Whether tensors there lie where Python runs: reading a number waits for nobody."""
    return device.type == "cpu"


class Accelerator:
    """A device of which nothing is known but that it computes.

    records: whether a step can be recorded and replayed. tensor_cores: whether TF32 is faster there than float32.
    fuses: whether `calibration.fused` has kernels for it.
    processes: the backend of torch.distributed whose collectives take its tensors.
    """

    records = False
    tensor_cores = False
    fuses = False
    processes = "gloo"

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def spare_bytes(self) -> int:
        """How much of the device's memory activations may take."""
        return 0

    def host_memory(self, shape: Sequence[int]) -> Tensor:
        """An uninitialised float32 tensor on the host, where the device copies it from fastest."""
        return torch.empty(tuple(shape))

    def send(self, tensor: Tensor) -> Tensor:
        """A tensor of the host on the device, without waiting for the copy where that is possible."""
        return tensor.to(self.device)

    def send_aside(self, tensor: Tensor) -> Callable[[], Tensor]:
        """Begin to copy a tensor of the host to the device beside what that computes; calling the result takes it."""
        there = self.send(tensor)
        return lambda: there

    def warm_up(self, step: Callable[[], T]) -> T:
        """Run a step that will be recorded, so that libraries have set up what they need."""
        return step()

    def record(self, step: Callable[[], T]) -> tuple[Callable[[], Any], T]:
        """Record the kernels of a step, which do not run yet. Returns a function that runs them, and their results.

        Raises:
            RuntimeError: the step does something that cannot be recorded.
        """
        raise RuntimeError(f"steps on {self.device} cannot be recorded")

    def forget(self) -> None:
        """Give back what recorded steps keep; none of them is replayed any more."""

    def own_randomness(self) -> AbstractContextManager[None]:
        """The caller's random numbers of the host and of this device are the same afterwards, whatever is drawn inside.

        Told nothing, torch keeps the state of every GPU of the machine, and sets each of them up for that.
        """
        return torch.random.fork_rng(devices=[])

    def seed(self, number: int) -> None:
        """Begin the random numbers of the host and of this device anew."""
        torch.manual_seed(number)

    def select(self) -> None:
        """Make this the current device of the process."""


class Host(Accelerator):
    """The CPU."""

    def seed(self, number: int) -> None:
        torch.default_generator.manual_seed(number)  # torch.manual_seed asks for every device there might be

    def send(self, tensor: Tensor) -> Tensor:
        return tensor


class Cuda(Accelerator):
    """An NVIDIA GPU, or an AMD one with torch for ROCm."""

    records = True
    tensor_cores = True
    fuses = importlib.util.find_spec("triton") is not None
    processes = "nccl"

    def spare_bytes(self) -> int:
        """Half of what is free; the rest is for learning."""
        return torch.cuda.mem_get_info(self.device)[0] // 2

    def host_memory(self, shape: Sequence[int]) -> Tensor:
        return torch.empty(tuple(shape), pin_memory=True)

    def send(self, tensor: Tensor) -> Tensor:
        return tensor.pin_memory().to(self.device, non_blocking=True)

    def send_aside(self, tensor: Tensor) -> Callable[[], Tensor]:
        with torch.cuda.stream(_stream(self.device, "copies")):
            there = self.send(tensor)
            copied = torch.cuda.Event()
            copied.record()

        def take() -> Tensor:
            stream = torch.cuda.current_stream(self.device)
            stream.wait_event(copied)
            there.record_stream(stream)
            return there

        return take

    def warm_up(self, step: Callable[[], T]) -> T:
        side, main = _stream(self.device, "steps"), torch.cuda.current_stream(self.device)
        side.wait_stream(main)
        with torch.cuda.stream(side):
            result = step()
        main.wait_stream(side)
        return result

    def record(self, step: Callable[[], T]) -> tuple[Callable[[], Any], T]:
        """A CUDA graph, in the memory of the one before, which is not replayed any more.

        `torch.cuda.graph` would empty the allocator's cache each time, and older ones collect garbage.
        """
        graph, side, before = torch.cuda.CUDAGraph(), _stream(self.device, "steps"), _recorded.get(self.device)
        torch.cuda.synchronize(self.device)
        with torch.cuda.stream(side):
            # Threads that read ahead may allocate meanwhile.
            graph.capture_begin(before.pool() if before else None, capture_error_mode="thread_local")
            try:
                result = step()
            finally:
                graph.capture_end()
        _recorded[self.device] = graph
        return graph.replay, result

    def forget(self) -> None:
        if _recorded.pop(self.device, None) is not None:
            torch.cuda.empty_cache()

    def own_randomness(self) -> AbstractContextManager[None]:
        index = torch.cuda.current_device() if self.device.index is None else self.device.index
        return torch.random.fork_rng(devices=[index])

    def select(self) -> None:
        torch.cuda.set_device(self.device)


KINDS: dict[str, type[Accelerator]] = {"cpu": Host, "cuda": Cuda}


def of(device: torch.device) -> Accelerator:
    """What a device offers."""
    return KINDS.get(device.type, Accelerator)(device)


@cache
def _stream(device: torch.device, _purpose: str) -> torch.cuda.Stream:
    return torch.cuda.Stream(device)


# The last graph of each device: its memory serves the next one, so it must not be freed before that is recorded.
_recorded: dict[torch.device, torch.cuda.CUDAGraph] = {}
