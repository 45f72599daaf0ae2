"""timm's pretrained weights: from the local cache, else from the Hugging Face hub, which is asked once, not retried."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from fimaq_deploy.errors import UserError

if TYPE_CHECKING:
    from torch import nn


_NETWORK_TIMEOUT_S = 5


def load_pretrained(full: str, config: Mapping[str, Any]) -> nn.Module:
    """A timm model with its own weights: from the local cache, else from the hub, which is asked once, not retried."""
    import timm
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError

    if not any(config.get(source) for source in ("hf_hub_id", "url", "file")):
        raise UserError(f"model '{full}' has no pretrained weights in timm: pass weights 'random' or a path")
    cached = _cached_file(config)
    if cached:
        return timm.create_model(full, pretrained=True, pretrained_cfg_overlay={"file": cached, "custom_load": False})
    _require_network(full)
    try:
        return timm.create_model(full, pretrained=True)
    except (OSError, HfHubHTTPError, EntryNotFoundError) as error:
        raise UserError(_no_download(full, error)) from error


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
