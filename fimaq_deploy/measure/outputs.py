"""What a predictor returns, whatever it is, as arrays by name: a tensor, a tuple, a dictionary, or these in each other.

A single output is called `output`, the entries of a tuple `output_0`, `output_1`, …, those of a dictionary (also a
ModelOutput of Hugging Face) or of a dataclass as they are called there; names of nested ones are joined with dots.
Boxes, scores and labels of objects, and masks where there are any, are one output, `objects`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fimaq_deploy.data.objects import KEYS, OBJECTS, pack_objects
from fimaq_deploy.engines.runner import Runner
from fimaq_deploy.errors import UserError
from fimaq_deploy.measure.tasks.task import Array

Predict: TypeAlias = "nn.Module | Runner | Callable[[NDArray[np.float32]], Any]"
Outputs: TypeAlias = "dict[str, Array]"

ONLY = "output"


def named_outputs(found: Any, images: int) -> Outputs:
    """Every output (images, ...) by its name, floats as float32; in the predictor's order.

    Raises:
        UserError: something in it is no array, or has not one entry an image.
    """
    outputs = {name or ONLY: _array(leaf, name or ONLY) for name, leaf in _leaves(found, "")}
    if not outputs:
        raise UserError(
            "the predictor returned nothing: expected an array (images, ...), or several in a tuple or dict"
        )
    for name, array in outputs.items():
        if array.ndim == 0 or len(array) != images or array.size == 0:
            raise UserError(
                f"the predictor returned shape {array.shape} as {name} for {images} images: expected ({images}, ...)"
            )
    return _with_objects(outputs) if outputs.keys() >= KEYS else outputs


def _with_objects(outputs: Outputs) -> Outputs:
    """Objects as one output, the first, before whatever else there is."""
    shapes = [outputs[name].shape for name in ("boxes", "scores", "labels")]
    boxes = shapes[0]
    if len(boxes) != 3 or boxes[2] != 4 or shapes[1:] != [boxes[:2]] * 2:
        raise UserError(
            f"the predictor returned boxes {shapes[0]}, scores {shapes[1]} and labels {shapes[2]}: expected "
            "(images, objects, 4) and twice (images, objects)"
        )
    masks = outputs.get("masks")
    if masks is not None and (masks.ndim != 4 or masks.shape[:2] != boxes[:2]):
        raise UserError(f"the predictor returned masks {masks.shape}: expected (images, objects, height, width)")
    rest = {name: array for name, array in outputs.items() if name not in KEYS | {"masks"}}
    return {OBJECTS: pack_objects(outputs), **rest}


def named_like(outputs: Outputs, like: Iterable[str], who: str) -> Outputs:
    """The same outputs under the names of another predictor's: by name, or by place where it has other names.

    Raises:
        UserError: there are not as many.
    """
    names = list(like)
    if set(names) == set(outputs):
        return {name: outputs[name] for name in names}
    if len(names) != len(outputs):
        raise UserError(f"{who} returns {', '.join(outputs)}: expected as many outputs as {', '.join(names)}")
    return dict(zip(names, outputs.values(), strict=True))


@contextmanager
def running(predict: Predict) -> Iterator[Callable[[Tensor], Outputs]]:
    """A function from a CPU tensor of images to outputs. A module is in eval mode inside, and as it was afterwards."""
    if isinstance(predict, nn.Module):
        with _evaluating(predict) as run:
            yield lambda images: named_outputs(run(images), len(images))
    elif isinstance(predict, Runner):
        yield lambda images: named_outputs(predict.outputs(images.numpy()), len(images))
    else:
        yield lambda images: named_outputs(predict(images.numpy()), len(images))


@contextmanager
def _evaluating(module: nn.Module) -> Iterator[Callable[[Tensor], Any]]:
    device = next((tensor.device for tensor in _tensors(module)), torch.device("cpu"))
    training = [one for one in module.modules() if one.training]
    module.eval()
    try:
        yield lambda images: _inferred(module, images.to(device))
    finally:
        for one in training:
            one.training = True


def _inferred(module: nn.Module, images: Tensor) -> Any:
    """Inference mode ends with the call: what a source keeps of the images meanwhile may be learned from later."""
    with torch.inference_mode():
        return module(images)


def _tensors(module: nn.Module) -> Iterable[Tensor]:
    yield from module.parameters()
    yield from module.buffers()


def _leaves(found: Any, name: str) -> Iterator[tuple[str, Any]]:
    """What is no container, with the path to it. An entry that is None was not computed."""
    if found is None:
        return
    parts = _parts(found)
    if parts is None:
        yield name, found
        return
    for key, part in parts.items():
        yield from _leaves(part, f"{name}.{key}" if name else str(key))


def _parts(found: Any) -> Mapping[Any, Any] | None:
    if isinstance(found, Mapping):
        return found
    if is_dataclass(found) and not isinstance(found, type):
        return {one.name: getattr(found, one.name) for one in fields(found)}
    if isinstance(found, tuple) and hasattr(found, "_fields"):
        return dict(zip(found._fields, found, strict=True))
    if isinstance(found, (tuple, list)):
        return {f"{ONLY}_{number}": part for number, part in enumerate(found)}
    return None


def _array(leaf: Any, name: str) -> Array:
    if isinstance(leaf, Tensor):
        whole = leaf.detach().cpu()
        return whole.float().numpy() if whole.is_floating_point() else whole.numpy()
    if not isinstance(leaf, np.ndarray):
        raise UserError(f"the predictor returned a {type(leaf).__name__} as {name}: expected an array or a tensor")
    return leaf.astype(np.float32) if np.issubdtype(leaf.dtype, np.floating) else leaf
