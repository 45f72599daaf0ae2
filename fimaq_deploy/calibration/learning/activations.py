"""Where the activations at a block boundary live: on the device, in host memory, or in a memory-mapped file.

Reconstruction keeps three tensors as long as the reconstruction set for each block (its full-precision input, its
quantized input, its full-precision output) and some losses one more. On a GPU they take up to half of the memory that
is free when the work begins, then pinned host memory; beyond the budget for host memory they are files that the
operating system pages, so peak memory is flat in the number of images.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import TracebackType

import torch
from torch import Tensor

from fimaq_deploy.calibration.device import of
from fimaq_deploy.calibration.learning.minibatches import Rows
from fimaq_deploy.files import reserve

DEFAULT_BUDGET_BYTES = 4 * 2**30


class ActivationStore:
    """Allocates float32 tensors for boundary activations within a memory budget; a context manager.

    budget_bytes: what may be in host memory at once; device: where tensors that fit are placed.
    """

    def __init__(self, budget_bytes: int = DEFAULT_BUDGET_BYTES, device: torch.device | str = "cpu") -> None:
        self.budget_bytes, self.device = budget_bytes, torch.device(device)
        self._place = of(self.device)
        self._device_bytes = self._place.spare_bytes()
        self._on_device: dict[int, int] = {}
        self._resident: dict[int, int] = {}
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._files: dict[int, Path] = {}
        self._count = 0

    def __enter__(self) -> ActivationStore:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._place.forget()
        self._on_device.clear()
        self._resident.clear()
        self._files.clear()
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None

    @property
    def resident_bytes(self) -> int:
        """In host memory."""
        return sum(self._resident.values())

    def empty(self, shape: Sequence[int]) -> Tensor:
        """An uninitialised float32 tensor, on the device, in host memory or memory-mapped."""
        size_bytes = 4 * math.prod(shape)
        if sum(self._on_device.values()) + size_bytes <= self._device_bytes:
            tensor = torch.empty(tuple(shape), device=self.device)
            self._on_device[tensor.data_ptr()] = size_bytes
            return tensor
        if self.resident_bytes + size_bytes <= self.budget_bytes:
            tensor = self._place.host_memory(shape)
            self._resident[tensor.data_ptr()] = size_bytes
            return tensor
        return self._mapped(shape)

    def _mapped(self, shape: Sequence[int]) -> Tensor:
        if self._folder is None:
            self._folder = tempfile.TemporaryDirectory(prefix="fimaq-activations-")
        path = Path(self._folder.name) / f"{self._count}.bin"
        self._count += 1
        reserve(path, 4 * math.prod(shape))
        flat = torch.from_file(str(path), shared=True, size=math.prod(shape), dtype=torch.float32)
        self._files[flat.data_ptr()] = path
        return flat.view(tuple(shape))

    def rows(self, tensor: Tensor, device: torch.device) -> Rows:
        """A stored tensor as minibatches read it on `device`: files, and memory elsewhere, one minibatch ahead."""
        return Rows(tensor, device, ahead=tensor.data_ptr() in self._files)

    def release(self, *tensors: Tensor) -> None:
        """Give the memory or the file of tensors back; they must not be used afterwards."""
        for tensor in tensors:
            self._on_device.pop(tensor.data_ptr(), None)
            self._resident.pop(tensor.data_ptr(), None)
            path = self._files.pop(tensor.data_ptr(), None)
            if path is not None:
                path.unlink(missing_ok=True)

    def collect(self, batches: Iterable[Tensor], count: int) -> Tensor:
        """Concatenate batches of `count` samples in all."""
        out: Tensor | None = None
        start = 0
        for batch in batches:
            if out is None:
                out = self.empty((count, *batch.shape[1:]))
            out[start : start + len(batch)] = batch
            start += len(batch)
        assert out is not None and start == count
        return out
