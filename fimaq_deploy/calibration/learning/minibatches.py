"""Stored activations as the inner loop reads them: the rows of a minibatch, on the device that learns.

What lies on the device is indexed there. What lies in host memory or in a memory-mapped file is read one minibatch
ahead by a thread, and sent beside what the device computes, while the minibatch before is learned.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache

import torch
from torch import Tensor

from fimaq_deploy.calibration.device import of


class Rows:
    """A tensor with one row per image that is read on `device`: `rows[indices]`, or `rows[slice]`.

    ahead: whether reading takes long enough to do it in advance, because the tensor lies elsewhere.
    part: of a minibatch that has arrived, what is read of it next; None: all.
    """

    def __init__(self, tensor: Tensor, device: torch.device, *, ahead: bool = False) -> None:
        self.tensor, self.device = tensor, device
        self.part: slice | None = None
        self.ahead = ahead or tensor.device != device
        self._arrived: Tensor | None = None
        self._coming: dict[int, tuple[Tensor, Future[Callable[[], Tensor]]]] = {}

    def __len__(self) -> int:
        return len(self.tensor)

    def __getitem__(self, where: slice | Tensor) -> Tensor:
        if self._arrived is not None and isinstance(where, Tensor):
            return self._arrived if self.part is None else self._arrived[self.part]
        return self._fetched(where)

    def source(self, index: Tensor) -> tuple[Tensor, Tensor | None]:
        """Where the rows of `index` are read from: all rows and their numbers, or those rows alone and None."""
        if self.ahead:
            return self[index], None
        return self.tensor, index.to(self.device)

    def arrive(self, index: Tensor) -> None:
        """From now on any indices stand for `part` of `index`, whose rows lie at one address for all minibatches."""
        rows = self._fetched(index)
        self._arrived = rows.clone() if self._arrived is None else self._arrived.copy_(rows)

    def _fetched(self, where: slice | Tensor) -> Tensor:
        coming = self._coming.pop(id(where), None)
        if coming is None:
            return self.tensor[where].to(self.device)
        take = coming[1].result()
        return take()

    def prefetch(self, index: Tensor) -> None:
        """Begin to read the rows of `index`; the same tensor object fetches them later."""
        if self.ahead:
            self._coming[id(index)] = index, _thread().submit(self._read, index)

    def _read(self, index: Tensor) -> Callable[[], Tensor]:
        return of(self.device).send_aside(self.tensor[index])


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
        elif found:
            index = of(found[0].device).send(index)
        yield index


@cache
def _thread() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(1, "read-ahead")
