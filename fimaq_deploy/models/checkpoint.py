"""Checkpoint files, read without running code.

Not covered: timm's `.npz` checkpoints.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fimaq_deploy.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor


State = dict[str, "Tensor"]


SUFFIXES = (".safetensors", ".pth", ".pt", ".bin", ".tar")


_WRAPPERS = ("state_dict", "model", "model_ema", "state_dict_ema")


_PREFIXES = ("module.", "_orig_mod.")


def read_checkpoint(path: str | Path) -> State:
    """The tensors of a checkpoint file, unwrapped from 'state_dict', 'model', 'model_ema' or 'state_dict_ema' (the
    first that is there) and from the prefixes of DataParallel and torch.compile. No code in the file is run.

    Raises:
        UserError: the file is missing, of another kind, corrupt, or holds Python objects or no tensors.
    """
    from torch import Tensor

    file = Path(path)
    if not file.is_file():
        raise UserError(f"no checkpoint '{path}': expected 'pretrained', 'random' or the path of a file ({_kinds()})")
    if file.suffix not in SUFFIXES:
        raise UserError(f"checkpoint {path}: expected a file named {_kinds()}, not '{file.suffix}'")
    loaded = _read_safetensors(file) if file.suffix == ".safetensors" else _read_torch(file)
    while isinstance(loaded, Mapping) and (inner := next((key for key in _WRAPPERS if _wraps(loaded, key)), None)):
        loaded = loaded[inner]
    state = {k: v for k, v in loaded.items() if isinstance(v, Tensor)} if isinstance(loaded, Mapping) else {}
    if not state:
        raise UserError(f"checkpoint {path} holds no tensors: expected a state dict, plain or under 'model'")
    for prefix in _PREFIXES:
        if all(key.startswith(prefix) for key in state):
            state = {key.removeprefix(prefix): value for key, value in state.items()}
    return state


def _kinds() -> str:
    return "*.safetensors, *.pth, *.pt, *.bin"


def _wraps(loaded: Mapping[str, Any], key: str) -> bool:
    return isinstance(loaded.get(key), Mapping)


def _read_safetensors(file: Path) -> State:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(file)
    except (SafetensorError, OSError) as error:
        raise UserError(
            f"checkpoint {file} is corrupt or not safetensors ({error}): download or save it again"
        ) from error


def _read_torch(file: Path) -> Any:
    from argparse import Namespace
    from pickle import UnpicklingError

    import torch

    try:
        with torch.serialization.safe_globals([Namespace]):  # timm's own training script saves its arguments
            return torch.load(file, map_location="cpu", weights_only=True)
    except (
        UnpicklingError,
        RuntimeError,
        EOFError,
        OSError,
        ValueError,
        KeyError,
        IndexError,
        AttributeError,
    ) as error:
        if "GLOBAL" in str(error):
            raise UserError(
                f"checkpoint {file} holds Python objects, which are refused because loading them runs code: "
                "save model.state_dict() alone"
            ) from error
        reason = " ".join(str(error).split())[:100]
        raise UserError(
            f"checkpoint {file} is corrupt or no torch file ({reason}): download or save it again"
        ) from error
