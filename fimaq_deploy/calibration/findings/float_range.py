"""Whether float16 holds everything that a model computes, or bfloat16 has to.

Some transformers have activations beyond 65504 (Swin's later stages and large ViTs are known for it), and in float16
they become infinite without a word. So the model runs on calibration images and every float result of every operator
is measured, not only what modules return: unscaled attention scores overflow first. Images that were not seen may reach
further, hence the margin. bfloat16 has float32's range, and 8 significant bits in place of 11.

What a Swin's mask adds to hidden scores (-1e4 in a quantized model) is a result like any other, and fits.

Not covered: sums inside an operator, which the engines keep in float32.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from fimaq_deploy.data.batches import images_at_once
from fimaq_deploy.models.families.roles import Stage
from fimaq_deploy.target import HighPrecision

LARGEST_FLOAT16 = 65504.0
MARGIN = 4.0
_BATCH = 8


@dataclass(frozen=True)
class Peak:
    """The largest absolute value of a stage, and the operator that made it."""

    stage: str
    operator: str
    value: float


class _Watch(TorchDispatchMode):
    """Keeps the largest absolute value among the float results of all operators."""

    def __init__(self) -> None:
        super().__init__()
        self.value, self.operator = 0.0, ""

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, tuple | list) else (result,):
            if isinstance(tensor, Tensor) and tensor.is_floating_point() and tensor.numel():
                self._see(str(func), float(tensor.abs().max()))
        return result

    def _see(self, operator: str, value: float) -> None:
        if not value <= self.value:  # also where it is NaN
            self.value, self.operator = value, operator


@torch.no_grad()
def largest_values(stages: Sequence[Stage], images: Tensor) -> list[Peak]:
    """The peak of every stage on some images (N, C, H, W), computed in float32."""
    peaks = [Peak(stage.name, "", 0.0) for stage in stages]
    device = next(stages[0].module.parameters()).device
    for batch in images.split(images_at_once(images.shape, _BATCH)):
        x = batch.to(device)
        for number, stage in enumerate(stages):
            with _Watch() as watch:
                x = stage.module(x)
            if not watch.value <= peaks[number].value:
                peaks[number] = Peak(stage.name, watch.operator, watch.value)
    return peaks


def choose_type(peaks: Sequence[Peak]) -> tuple[HighPrecision, str]:
    """The type that holds the peaks with a margin, and why, as a sentence."""
    peak = max(peaks, key=lambda each: float("inf") if each.value != each.value else each.value)
    fits = peak.value * MARGIN <= LARGEST_FLOAT16
    told = f"the largest activation on calibration images is {peak.value:.4g} (in {peak.stage}, {peak.operator})"
    if fits:
        return (
            "float16",
            f"{told}, within float16's {LARGEST_FLOAT16:g} by more than {MARGIN:g} times: FP16 around INT8",
        )
    return "bfloat16", f"{told}, less than {MARGIN:g} times within float16's {LARGEST_FLOAT16:g}: BF16 around INT8"
