"""The float rest of a model as a file of its own: what its encoder hands out of one image, to the model's answer.

A detector's answer becomes boxes (D, 4), scores (D) and labels (D), with masks (D, H, W) in [0, 1] where there are any;
every other answer stays what it is, without its batch. How many objects there are depends on the image in torchvision's
models, so a pass is traced with torch.onnx's older exporter, which they support, for one image.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fimaq_deploy.errors import UserError
from fimaq_deploy.files import written_whole
from fimaq_deploy.models.detectors import arranged, is_detection, labels_of
from fimaq_deploy.models.inside import Inside, spliced

_OPSET = 17  # of the older exporter, which knows at most 20
_KEYS = ("boxes", "scores", "labels", "masks")


class Head(nn.Module):
    """The model behind its encoder.

    shape: (C, H, W) of the model's images. names: of what the encoder hands out, in its order.
    """

    def __init__(self, model: nn.Module, inside: Inside, shape: tuple[int, int, int], names: Sequence[str]) -> None:
        super().__init__()
        self._given: list[Tensor] = []
        self._shape = (1, *shape)
        self._labels = labels_of(model)
        self.outputs: tuple[str, ...] = ()
        self.rest = spliced(model, inside, lambda _images: dict(zip(names, self._given, strict=True)))
        self.eval()

    def forward(self, *maps: Tensor) -> tuple[Tensor, ...]:
        """maps: what the encoder hands out of one image, each (1, ...)."""
        self._given = list(maps)
        answer = self.rest(maps[0].new_zeros(self._shape))
        found = self._objects(answer) if is_detection(answer) else _tensors(answer)
        self.outputs = tuple(found)
        return tuple(found.values())

    def _objects(self, answer: Any) -> dict[str, Tensor]:
        if isinstance(answer, Sequence):
            own = {name: answer[0][name] for name in _KEYS if name in answer[0]}
        else:
            size = self._shape[-2:]
            own = {name: one[0] for name, one in arranged(answer, size, labels=self._labels).items()}
        if "masks" in own:
            masks = own["masks"].float()
            own["masks"] = masks[:, 0] if masks.ndim == 4 else masks
        return own


def encoder_maps(inside: Inside, images: Tensor) -> dict[str, Tensor]:
    """What the encoder hands out of what it gets, by name."""
    found = inside.family.original(inside.encoder)(images)
    return dict(found) if isinstance(found, Mapping) else {"output": found}


@torch.no_grad()
def export_head(model: nn.Module, inside: Inside, size: tuple[int, int], images: Tensor, path: Path) -> Head:
    """Write it, and return what was written.

    size: (height, width) of the model's images. images: one image as the encoder gets it.

    Raises:
        UserError: torch cannot write this model as ONNX.
    """
    maps = encoder_maps(inside, images[:1])
    head = Head(model, inside, (images.shape[1], *size), list(maps))
    try:
        head(*maps.values())
        with (
            written_whole(path) as beside,
            warnings.catch_warnings(),
            redirect_stdout(io.StringIO()),
            redirect_stderr(io.StringIO()),
        ):
            warnings.simplefilter("ignore")
            torch.onnx.export(
                head,
                tuple(maps.values()),
                str(beside),
                dynamo=False,
                opset_version=_OPSET,
                input_names=list(maps),
                output_names=list(head.outputs),
                dynamic_axes={name: {0: f"{name}_count"} for name in head.outputs if name in _KEYS},
            )
    except Exception as error:  # of the exporter, of torch, or of somebody's model
        reason = " ".join(str(error).split())[:160] or type(error).__name__
        raise UserError(f"torch cannot write what stands behind the encoder as ONNX ({reason})") from error
    return head


def _tensors(answer: Any) -> dict[str, Tensor]:
    """Every tensor of an answer with a batch of one, without it."""
    if isinstance(answer, Tensor):
        return {"output": answer[0]}
    named = answer if isinstance(answer, Mapping) else dict(enumerate(answer))
    found = {str(name): one[0] for name, one in named.items() if isinstance(one, Tensor) and one.ndim > 0}
    if not found:
        raise UserError(f"the model answers a {type(answer).__name__} without tensors")
    return found
