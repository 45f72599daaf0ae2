"""Where torch can compute."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fimaq_deploy.errors import UserError, shown

if TYPE_CHECKING:
    import torch


def find_device(device: str | torch.device | int) -> torch.device:
    """A torch device on which tensors can be made, computed with and read, which is tried.

    Raises:
        UserError: no such device here.
    """
    import torch

    try:
        found = torch.device(device)
    except (RuntimeError, TypeError, ValueError):
        raise UserError(f"unknown device '{shown(device)}': expected cpu, cuda or cuda:N") from None
    if found.type == "cuda":
        _require_cuda(found)
    try:
        computes = float((torch.ones(2, device=found) + 1).sum()) == 4
    except Exception as error:  # each backend raises errors of its own
        raise UserError(f"device '{found}': torch cannot compute there ({_reason(error)}); use {_usable()}") from error
    if not computes:
        raise UserError(f"device '{found}': torch cannot compute there (1 + 1 is not 2); use {_usable()}")
    return found


def _require_cuda(found: torch.device) -> None:
    import torch

    if not torch.cuda.is_available():
        raise UserError(f"device '{found}': torch sees no CUDA device here; use cpu, or install a CUDA build of torch")
    if (found.index or 0) >= torch.cuda.device_count():
        raise UserError(f"device '{found}': there are {torch.cuda.device_count()} CUDA devices, counted from 0")


def _usable() -> str:
    import torch

    return "cpu or cuda" if torch.cuda.is_available() else "cpu"


def _reason(error: Exception) -> str:
    """The first line of a message that may have dozens."""
    return shown((str(error).strip() or type(error).__name__).splitlines()[0])
