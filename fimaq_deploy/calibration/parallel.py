"""Several processes that learn one model: each has a share of the images, and what is averaged over images is reduced.

`torchrun --nproc-per-node 4 -m fimaq_deploy build ...` starts them, on one machine or several. Every process walks the
same blocks with its own share of the reconstruction set, in minibatches that are as much smaller. After each backward
pass the gradients are averaged, as are Fisher statistics, so that all take the same step; what only one should decide
(rewrites, initial scales) comes from the first. Processes whose images differ in number by one weigh the same.

Without torchrun there is one process and nothing here does anything. On GPUs the processes talk through NCCL, on CPUs
through gloo. Tested with two gloo processes; NCCL has not been run.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from fimaq_deploy.calibration.device import of
from fimaq_deploy.errors import UserError
from fimaq_deploy.models.devices import find_device
from fimaq_deploy.recipe import Recipe

T = TypeVar("T")

_STOPPED = (
    "another process of this job ended before its work was done, so this one stops; its own message says why. "
    "Finished blocks are kept: run the same command with --resume"
)


@dataclass(frozen=True)
class Group:
    """The processes of a job, as one of them sees them. Collective calls have to be made by all of them in one order.

    Raises (every collective):
        UserError: another process ended.
    """

    rank: int
    size: int

    @property
    def leads(self) -> bool:
        """Whether this is the process that reads and writes files and prints."""
        return self.rank == 0

    def mean(self, tensor: Tensor) -> Tensor:
        """The mean over processes; a new tensor where there are several."""
        return tensor if self.size == 1 else self.sum(tensor) / self.size

    def sum(self, tensor: Tensor) -> Tensor:
        """The sum over processes; a new tensor where there are several."""
        if self.size == 1:
            return tensor
        total = tensor.detach().clone()
        _collective(lambda: dist.all_reduce(total))
        return total

    def average_gradients(self, parameters: Iterable[nn.Parameter], loss: Tensor) -> Tensor:
        """Give every process the mean gradients, in one message; returns the mean of `loss`, which rides along."""
        if self.size == 1:
            return loss
        grads = [parameter.grad for parameter in parameters if parameter.grad is not None]
        means = self.mean(torch.cat([loss.detach().view(1), *(grad.flatten() for grad in grads)]))
        parts = means[1:].split([grad.numel() for grad in grads])
        for grad, part in zip(grads, parts, strict=True):
            grad.copy_(part.view_as(grad))
        return means[0]

    @torch.no_grad()
    def broadcast(self, tensors: Sequence[Tensor]) -> None:
        """Overwrite tensors with those of the first process."""
        if self.size > 1:
            for tensor in tensors:
                _collective(partial(dist.broadcast, tensor, 0))

    def agree_on(self, decide: Callable[[], T]) -> T:
        """What `decide` returns in the first process, the only one that calls it. It has to be picklable."""
        if self.size == 1:
            return decide()
        box: list[Any] = [decide() if self.leads else None]
        _collective(lambda: dist.broadcast_object_list(box, 0))
        return box[0]


def current() -> Group:
    """The group that this process belongs to: of itself alone unless torch.distributed has been initialised."""
    if dist.is_available() and dist.is_initialized():
        return Group(dist.get_rank(), dist.get_world_size())
    return Group(0, 1)


def divided(recipe: Recipe, size: int) -> Recipe:
    """The recipe that one of `size` processes follows so that together they do what it says."""
    settings, tuning = recipe.reconstruction, recipe.tuning
    shares = {
        "batch_size": max(1, settings.batch_size // size),
        "fisher_images": -(-settings.fisher_images // size),
    }
    return recipe.model_copy(
        update={
            "reconstruction": settings.model_copy(update=shares),
            "tuning": tuning.model_copy(update={"batch_size": max(1, tuning.batch_size // size)}),
        }
    )


def started_by_torchrun() -> bool:
    """Whether this process is one of several that torchrun started."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def own_device(device: str) -> str:
    """The device of this process: `cuda` alone means the GPU of its number on the machine.

    Raises:
        UserError: several processes of a machine were given one GPU, or nobody says which of them this is.
    """
    kind, _, number = device.partition(":")
    if kind == "cpu" or not started_by_torchrun():
        return device
    if "LOCAL_RANK" not in os.environ:
        raise UserError("WORLD_SIZE is set and LOCAL_RANK is not: start the processes with torchrun")
    if not number:
        return f"{kind}:{os.environ['LOCAL_RANK']}"
    if int(os.environ.get("LOCAL_WORLD_SIZE", "1")) > 1:
        raise UserError(f"device '{device}' for several processes: name '{kind}', and each takes a GPU of its own")
    return device


@contextmanager
def session(device: str) -> Iterator[Group]:
    """Join the other processes that torchrun started, if it did; leave them at the end.

    torchrun asks the others to stop with SIGTERM when one process ends; inside, that is an error with a message.

    Raises:
        UserError: another process ended, or this one has no device of its own.
    """
    if not started_by_torchrun() or dist.is_initialized():
        yield current()
        return
    place = of(find_device(own_device(device)))
    place.select()
    _collective(partial(dist.init_process_group, place.processes))
    try:
        with _stop_asked_by_signal():
            yield current()
    finally:
        dist.destroy_process_group()


@contextmanager
def _stop_asked_by_signal() -> Iterator[None]:
    def stop(number: int, frame: object) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise UserError(_STOPPED)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _collective(call: Callable[[], object]) -> None:
    try:
        call()
    except RuntimeError as error:  # what torch.distributed raises derives from it
        raise UserError(f"{_STOPPED} ({str(error).splitlines()[0]})") from error
