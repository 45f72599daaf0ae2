"""Frozen quantized weights as files: `quantized.safetensors`, and the states that an interrupted build resumes from.

A file holds what the engine needs and nothing else: INT8 integers (INT4 ones in int8), scales, offsets and the
parameters that stay in high precision. Its metadata says which recipe, targets and seed made it.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, TypeGuard

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from fimaq_deploy.calibration.quantizers.fake_quant import seal_activations
from fimaq_deploy.calibration.quantizers.layers import (
    QuantizedLayer,
    activation_quantizers,
    enable_quantization,
    quantized_layers,
)
from fimaq_deploy.errors import UserError, shown
from fimaq_deploy.files import written_whole
from fimaq_deploy.manifest import check_file


def frozen_state(module: nn.Module) -> dict[str, Tensor]:
    """The tensors of a frozen module by name: no full-precision twins of quantized weights, nothing learnable."""
    layers = dict(quantized_layers(module))
    skipped = {f"{name}.weight" for name in layers}
    return {
        name: tensor.detach().cpu().contiguous()
        for name, tensor in module.state_dict().items()
        if name not in skipped and ".weight_quantizer." not in name
    }


@torch.no_grad()
def load_frozen_state(module: nn.Module, state: dict[str, Tensor]) -> None:
    """Put a frozen state back into an unfrozen twin, which is frozen and enabled afterwards.

    Raises:
        UserError: the tensors belong to another model or are damaged; the twin is as it was.
    """
    expected = set(frozen_state(module))
    if expected != set(state):
        different = sorted(expected ^ set(state))
        raise UserError(f"quantized weights belong to another model: tensor '{different[0]}' is not in both")
    owners = {name: module.get_submodule(name.rpartition(".")[0]) for name in state}
    for name, tensor in state.items():
        _check(name, tensor, owners[name])
    for name, tensor in state.items():
        owner, leaf = owners[name], name.rpartition(".")[2]
        if _is_frozen_weight(owner, leaf):
            setattr(owner, leaf, tensor.to(owner.weight.device))
        else:
            getattr(owner, leaf).copy_(tensor)
    mark_frozen(module)


def _is_frozen_weight(owner: nn.Module, leaf: str) -> TypeGuard[QuantizedLayer]:
    return isinstance(owner, QuantizedLayer) and leaf in ("q_weight", "q_scale")


def _check(name: str, tensor: Tensor, owner: nn.Module) -> None:
    """Refuse a tensor that its owner would not have written: of another type, layout or range."""
    leaf = name.rpartition(".")[2]
    place = owner.stored_form()[leaf] if _is_frozen_weight(owner, leaf) else getattr(owner, leaf)
    if tensor.shape != place.shape or tensor.dtype != place.dtype:
        raise UserError(
            f"quantized weights belong to another model: '{name}' is {_form(tensor)}, expected {_form(place)}"
        )
    numbers = tensor.float() if tensor.dtype.itemsize == 1 else tensor
    if tensor.is_floating_point() and not numbers.isfinite().all():
        raise UserError(f"quantized weights are damaged: '{name}' holds NaN or infinite values")
    if leaf == "q_scale" and not (numbers > 0).all():
        raise UserError(f"quantized weights are damaged: '{name}' holds scales that are not above zero")
    if _is_frozen_weight(owner, leaf) and leaf == "q_weight" and tensor.numel():
        low, high = owner.weight_quantizer.grid.bounds
        if numbers.min() < low or numbers.max() > high:
            raise UserError(f"quantized weights are damaged: '{name}' leaves its grid of {low:g} to {high:g}")


def _form(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)}"


def mark_frozen(module: nn.Module) -> None:
    """Let everything below a module compute with its frozen integers."""
    enable_quantization(module, True)
    for _, layer in quantized_layers(module):
        layer.frozen = True
    seal_activations([quantizer for _, quantizer in activation_quantizers(module)])


def write_state(path: Path, state: dict[str, Tensor], metadata: dict[str, Any]) -> None:
    """Write a safetensors file, whole or not at all. The same input gives the same bytes.

    Raises:
        UserError: the file cannot be written.
    """
    with written_whole(path) as beside:
        save_file(dict(sorted(state.items())), beside, {"fimaq": json.dumps(metadata, sort_keys=True)})


def read_state(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and metadata of a file that `write_state` wrote.

    Raises:
        UserError: the file is missing, damaged, was not written by this tool, or is not what its build wrote.
    """
    check_file(path)
    try:
        with safe_open(path, "pt") as file:
            metadata = dict(json.loads((file.metadata() or {})["fimaq"]))
            return {name: file.get_tensor(name) for name in file.keys()}, metadata  # noqa: SIM118
    except FileNotFoundError:
        raise UserError(f"quantized weights {path} do not exist") from None
    except (SafetensorError, OSError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise UserError(
            f"quantized weights {path} cannot be read ({shown(str(error))}): expected a file from this tool's `save`"
        ) from None


def fingerprint(*parts: Any) -> str:
    """A SHA-256 over tensors, modules and JSON-able values: two builds with equal fingerprints compute the same."""
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, nn.Module):
            for name, tensor in part.state_dict().items():
                digest.update(name.encode())
                digest.update(_bytes(tensor))
        elif isinstance(part, Tensor):
            digest.update(_bytes(part))
        else:
            digest.update(json.dumps(part, sort_keys=True, default=str).encode())
    return digest.hexdigest()


def _bytes(tensor: Tensor) -> bytes:
    held = tensor.detach().cpu().contiguous()
    # NumPy has no floats of 8 bits.
    return (held.view(torch.uint8) if held.is_floating_point() and held.itemsize == 1 else held).numpy().tobytes()
