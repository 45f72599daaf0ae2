"""Weights from the Hugging Face hub: from the local cache, else from the network, which is asked once, not retried."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fimaq_deploy.errors import UserError, shown

if TYPE_CHECKING:
    from torch import nn


_NETWORK_TIMEOUT_S = 5
_SETTINGS = ["*.json"]
_WEIGHTS = (["*.safetensors"], ["pytorch_model*.bin"])  # the second where a repository has none of the first


def load_pretrained(full: str, config: Mapping[str, Any], options: Mapping[str, Any]) -> nn.Module:
    """A timm model with its own weights. options: as `timm.create_model` takes them."""
    import timm
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError

    if not any(config.get(source) for source in ("hf_hub_id", "url", "file")):
        raise UserError(f"model '{full}' has no pretrained weights in timm: pass weights 'random' or a path")
    cached = _cached_file(config)
    if cached:
        overlay = {"file": cached, "custom_load": False}
        return timm.create_model(full, pretrained=True, **options, pretrained_cfg_overlay=overlay)
    _require_network(full)
    try:
        return timm.create_model(full, pretrained=True, **options)
    except (OSError, HfHubHTTPError, EntryNotFoundError) as error:
        raise UserError(_no_download(full, error)) from error


def hub_folder(repository: str) -> Path:
    """The folder of a repository on the hub, `OWNER/NAME` or `OWNER/NAME@REVISION`, with a model in it.

    Raises:
        UserError: no such name, or it is not in the cache and cannot be downloaded.
    """
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        cached = _snapshot(repository, _WEIGHTS[0] + _WEIGHTS[1], local_files_only=True)
        if _is_whole(cached):
            return cached
    except HFValidationError as error:
        raise UserError(f"'{shown(repository)}' is no name on the hub: {shown(str(error))}") from None
    except LocalEntryNotFoundError:
        pass
    _require_network(repository)
    try:
        for patterns in _WEIGHTS:
            folder = _snapshot(repository, patterns, local_files_only=False)
            if _is_whole(folder):
                break
    except (OSError, HfHubHTTPError) as error:
        raise UserError(_no_download(repository, error)) from error
    return folder


def _snapshot(repository: str, weights: list[str], *, local_files_only: bool) -> Path:
    from huggingface_hub import snapshot_download

    name, _, revision = repository.partition("@")
    patterns = [*_SETTINGS, *weights]
    return Path(
        snapshot_download(name, revision=revision or None, allow_patterns=patterns, local_files_only=local_files_only)
    )


def _is_whole(folder: Path) -> bool:
    kinds = [kind for kinds in _WEIGHTS for kind in kinds]
    return (folder / "config.json").is_file() and any(path for kind in kinds for path in folder.glob(kind))


def _cached_file(config: Mapping[str, Any]) -> str | None:
    from huggingface_hub import try_to_load_from_cache

    repository, filename = config.get("hf_hub_id"), config.get("hf_hub_filename")
    names = [filename] if filename else ["model.safetensors", "pytorch_model.bin"]
    found = [try_to_load_from_cache(repository, name) for name in names if repository]
    return next((path for path in found if isinstance(path, str) and not path.endswith(".npz")), None)


def _require_network(full: str) -> None:
    """Ask the hub for one header, because its downloads retry for most of a minute where there is no network."""
    from huggingface_hub import constants
    from huggingface_hub.utils import get_session

    try:
        get_session().head(constants.ENDPOINT, timeout=_NETWORK_TIMEOUT_S)
    except Exception as error:  # the exception's base class differs between versions of huggingface_hub
        raise UserError(_no_download(full, error)) from error


def _no_download(full: str, error: BaseException) -> str:
    reason = " ".join(str(error).split())[:160] or type(error).__name__
    return (
        f"the pretrained weights of '{full}' cannot be downloaded ({reason}): pass --weights PATH with a checkpoint "
        "file, --weights random, or fill the Hugging Face cache on a machine with network and copy it here"
    )
