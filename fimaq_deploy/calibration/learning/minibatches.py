"""Stored activations as the inner loop reads them: the rows of a minibatch, on the device that learns.

What lies on the device is indexed there. What lies in host memory or in a memory-mapped file is read one minibatch
ahead by a thread, into pinned memory and across on a stream of its own where the device is a GPU, while the minibatch
before is learned. Not run on a GPU.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache

import torch
from torch import Tensor


class Rows:
    """A tensor with one row per image that is read on `device`: `rows[indices]`, or `rows[slice]`.

    ahead: whether reading takes long enough to do it in advance, because the tensor lies elsewhere.
    """

    def __init__(self, tensor: Tensor, device: torch.device, *, ahead: bool = False) -> None:
        self.tensor, self.device = tensor, device
        self.ahead = ahead or tensor.device != device
        self._coming: dict[int, tuple[Tensor, Future[tuple[Tensor, object]]]] = {}

    def __len__(self) -> int:
        return len(self.tensor)

    def __getitem__(self, where: slice | Tensor) -> Tensor:
        coming = self._coming.pop(id(where), None)
        if coming is None:
            return self.tensor[where].to(self.device)
        rows, copied = coming[1].result()
        if copied is not None:
            stream = torch.cuda.current_stream(self.device)
            stream.wait_event(copied)  # type: ignore[arg-type]
            rows.record_stream(stream)
        return rows

    def prefetch(self, index: Tensor) -> None:
        """Begin to read the rows of `index`; the same tensor object fetches them later."""
        if self.ahead:
            self._coming[id(index)] = index, _thread().submit(self._read, index)

    def _read(self, index: Tensor) -> tuple[Tensor, object]:
        rows = self.tensor[index]
        if self.device.type != "cuda":
            return rows.to(self.device), None
        with torch.cuda.stream(_copies(self.device)):
            there = rows.pin_memory().to(self.device, non_blocking=True)
            copied = torch.cuda.Event()
            copied.record()
        return there, copied


def read_ahead(order: Iterator[Tensor], rows: Callable[[], Sequence[Rows]]) -> Iterator[Tensor]:
    """The minibatches of `order`, each with its rows on their way while the one before is in use.

    rows: what the next minibatch will be read from. Indices stay on the CPU unless everything is on a GPU.
    """
    following = next(order)
    while True:
        index, following = following, next(order)
        found = rows()
        if any(one.ahead for one in found):
            for one in found:
                one.prefetch(following)
        elif found and found[0].device.type == "cuda":
            index = index.pin_memory().to(found[0].device, non_blocking=True)
        yield index


@cache
def _thread() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(1, "read-ahead")


@cache
def _copies(device: torch.device) -> torch.cuda.Stream:
    return torch.cuda.Stream(device)
