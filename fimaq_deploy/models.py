"""A name or a factory in, a timm VisionTransformer or SwinTransformer with its weights and preprocessing out.

Importing this module imports neither torch nor timm: the command line lists the names in its help.

Preprocessing follows timm's convention: it lies in the module's `pretrained_cfg` dictionary. A model of your own may
carry one (`mean`, `std`, `interpolation`, `crop_pct`, `crop_mode`); the image size, channels and classes are always
read from the module itself.

Not covered: models of other families (Swin V2, EVA, hybrids with a convolutional stem), `hf_hub:` and `local-dir:`
names, and timm's `.npz` checkpoints.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fimaq_deploy.bundled import BUNDLED
from fimaq_deploy.errors import UserError

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

State = dict[str, "Tensor"]

# The checkpoints behind the numbers that papers on quantized vision transformers report.
SHORT_NAMES: dict[str, str] = {
    "vit_t": "vit_tiny_patch16_224.augreg_in21k_ft_in1k",
    "vit_s": "vit_small_patch16_224.augreg_in21k_ft_in1k",
    "vit_b": "vit_base_patch16_224.augreg_in21k_ft_in1k",
    "vit_l": "vit_large_patch16_224.augreg_in21k_ft_in1k",
    "deit_t": "deit_tiny_patch16_224.fb_in1k",
    "deit_s": "deit_small_patch16_224.fb_in1k",
    "deit_b": "deit_base_patch16_224.fb_in1k",
    "swin_t": "swin_tiny_patch4_window7_224.ms_in1k",
    "swin_s": "swin_small_patch4_window7_224.ms_in1k",
    "swin_b": "swin_base_patch4_window7_224.ms_in22k_ft_in1k",
    "swin_b_384": "swin_base_patch4_window12_384.ms_in22k_ft_in1k",
}
SUFFIXES = (".safetensors", ".pth", ".pt", ".bin", ".tar")

_WRAPPERS = ("state_dict", "model", "model_ema", "state_dict_ema")
_PREFIXES = ("module.", "_orig_mod.")
_HEADS = ("head.fc.weight", "head.weight")
_NETWORK_TIMEOUT_S = 5


@dataclass(frozen=True)
class ModelInfo:
    """What a model reads and how images are prepared for it.

    input_shape: (channels, height, width).
    mean, std: one number a channel; an input is (pixel in [0, 1] - mean) / std.
    crop_pct: the share of the resized image's shorter side that the centre crop keeps.
    classes: the number of logits; 0 for a model without a classifier.
    """

    name: str
    input_shape: tuple[int, int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: str
    crop_pct: float
    crop_mode: str
    classes: int


def model_names() -> list[str]:
    """The bundled and the short names. Every timm ViT, DeiT or Swin name and `package.module:factory` work too."""
    return [*BUNDLED, *SHORT_NAMES]


def require_known(name: str) -> None:
    """Refuse a name that `load_model` does not know, before any weights are touched.

    Raises:
        UserError: unknown name or another architecture.
    """
    if ":" in name:
        with _current_directory_importable():
            _find_factory(name)
    elif name not in BUNDLED:
        _find_timm_config(name, SHORT_NAMES.get(name, name))


def load_model(
    name: str, weights: str | Path = "pretrained", *, device: str | torch.device = "cpu", seed: int = 0
) -> nn.Module:
    """A model in eval mode, float32, with its weights.

    name: a bundled name, a short name, a timm name, or `package.module:factory`, which is called without arguments and
        may also live in the current directory.
    weights: "pretrained" (for a factory: as it returns them), "random" (drawn from `seed`), or the path of a
        `.safetensors` file or of a `.pth`, `.pt` or `.bin` file read without running code. A checkpoint with another
        number of classes changes the classifier of a timm name to that number.

    Raises:
        UserError: unknown name or another architecture; a checkpoint that is missing, corrupt, of another architecture
            or not finite; pretrained weights that cannot be downloaded; an unknown or absent device.
    """
    place = find_device(device)
    if name in BUNDLED:
        model = _load_bundled(name, weights, seed)
    elif ":" in name:
        model = _load_factory(name, weights, seed)
    else:
        model = _load_timm(name, weights, seed)
    require_finite(model)
    return model.to(place).float().eval()


def describe_model(model: nn.Module, name: str = "") -> ModelInfo:
    """What the module reads. `name` defaults to timm's name for it, or to its class.

    Without a `pretrained_cfg` the whole image is resized bicubically and normalised with the ImageNet statistics, or
    to [-1, 1] where there are not 3 channels.

    Raises:
        UserError: the module is no timm VisionTransformer or SwinTransformer, or has no fixed image size.
    """
    from timm.data import resolve_data_config

    require_supported(model)
    config: Mapping[str, Any] = dict(getattr(model, "pretrained_cfg", None) or {"crop_pct": 1.0})
    resolved = resolve_data_config(pretrained_cfg=config)
    shape = image_shape(model)
    known = shape[0] == 3 or "mean" in config
    return ModelInfo(
        name=name or config.get("architecture") or type(model).__name__,
        input_shape=shape,
        mean=_per_channel(resolved["mean"] if known else (0.5,), shape[0]),
        std=_per_channel(resolved["std"] if known else (0.5,), shape[0]),
        interpolation=resolved["interpolation"],
        crop_pct=float(resolved["crop_pct"]),
        crop_mode=resolved["crop_mode"],
        classes=int(model.num_classes),  # type: ignore[arg-type]
    )


def require_supported(model: object, what: str = "the model") -> None:
    """Refuse everything but a timm VisionTransformer or SwinTransformer with a plain patch embedding.

    Raises:
        UserError: another class; the message names it.
    """
    from timm.layers import PatchEmbed
    from timm.models import SwinTransformer, VisionTransformer

    if not isinstance(model, (VisionTransformer, SwinTransformer)):
        raise UserError(f"{what} is a {type(model).__name__}: expected a timm VisionTransformer or SwinTransformer")
    if not isinstance(model.patch_embed, PatchEmbed):
        stem = type(model.patch_embed).__name__
        raise UserError(f"{what} has a {stem} stem: expected a plain patch embedding; hybrid models are not supported")


def require_finite(model: nn.Module) -> None:
    """Refuse weights that are NaN or infinite.

    Raises:
        UserError: names the first such tensor.
    """
    for key, value in model.state_dict().items():
        bad = int((~value.isfinite()).sum())
        if bad:
            raise UserError(
                f"weight {key}: {bad} of {value.numel()} values are NaN or infinite; load a checkpoint without them"
            )


def find_device(device: str | torch.device) -> torch.device:
    """A torch device that is here.

    Raises:
        UserError: no such device.
    """
    import torch

    try:
        found = torch.device(device)
    except RuntimeError:
        raise UserError(f"unknown device '{device}': expected cpu, cuda or cuda:N") from None
    if found.type == "cuda" and not torch.cuda.is_available():
        raise UserError(f"device '{device}': torch sees no CUDA device here; use cpu, or install a CUDA build of torch")
    if found.type == "cuda" and (found.index or 0) >= torch.cuda.device_count():
        raise UserError(f"device '{device}': there are {torch.cuda.device_count()} CUDA devices, counted from 0")
    return found


# --- where models come from ---


def _load_bundled(name: str, weights: str | Path, seed: int) -> nn.Module:
    model = _seeded(BUNDLED[name].create, seed)
    channels = model.patch_embed.proj.in_channels  # type: ignore[union-attr]
    half = (0.5,) * int(channels)  # type: ignore[arg-type]
    model.pretrained_cfg = {"architecture": name, "mean": half, "std": half, "crop_pct": 1.0}  # type: ignore[assignment]
    if weights != "random":
        _load_into(model, read_checkpoint(BUNDLED[name].weights if weights == "pretrained" else weights), name, weights)
    return model


def _load_factory(name: str, weights: str | Path, seed: int) -> nn.Module:
    from torch import nn

    if weights == "random":
        raise UserError(
            f"weights 'random' for {name}: a factory decides its own; use 'pretrained' (as it returns them)"
        )
    with _current_directory_importable():
        model = _seeded(_find_factory(name), seed)
    if not isinstance(model, nn.Module):
        raise UserError(f"factory {name} returned {type(model).__name__}: expected a torch.nn.Module")
    require_supported(model, name)
    if weights != "pretrained":
        _load_into(model, read_checkpoint(weights), name, weights)
    return model


def _load_timm(name: str, weights: str | Path, seed: int) -> nn.Module:
    import timm

    full = SHORT_NAMES.get(name, name)
    config = _find_timm_config(name, full)
    if weights == "pretrained":
        return _load_pretrained(full, config)
    if weights == "random":
        return _seeded(lambda: timm.create_model(full), seed)
    state = read_checkpoint(weights)
    classes = next((len(state[key]) for key in _HEADS if key in state and state[key].ndim == 2), None)
    model = _seeded(lambda: timm.create_model(full, num_classes=classes), seed)
    _load_into(model, state, name, weights)
    return model


def _seeded(create: Callable[[], nn.Module], seed: int) -> nn.Module:
    """Create a module whose random weights come from `seed`; the caller's random state stays as it was."""
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return create()


def _find_timm_config(name: str, full: str) -> Mapping[str, Any]:
    """timm's `pretrained_cfg` of a name. Unknown names and other architectures are refused before any allocation."""
    import timm
    import torch

    if not timm.is_model(full):
        raise UserError(f"unknown model '{name}'{_nearest(name)}; `package.module:factory` loads a model of your own")
    architecture, _, tag = full.partition(".")
    tags = timm.list_pretrained(f"{architecture}.*")
    if tag and full not in tags:
        raise UserError(f"model '{name}': timm has no weights '{tag}'; expected one of {_listed(tags)}")
    with torch.device("meta"):
        model = timm.create_model(full)
    require_supported(model, f"model '{name}'")
    return dict(model.pretrained_cfg)


def _nearest(name: str) -> str:
    import timm

    families = [timm.list_models(module=module) for module in ("vision_transformer", "deit", "swin_transformer")]
    names = [*model_names(), *(each for family in families for each in family)]
    longer = [each for each in names if each.startswith(name.lower())]
    close = longer[:3] or get_close_matches(name.lower(), names, 3, 0.5)
    return f": did you mean {' or '.join(close)}?" if close else f": expected {_listed(model_names())} or a timm name"


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names) or "none"


# --- factories of the user's own ---


@contextmanager
def _current_directory_importable() -> Iterator[None]:
    here = str(Path.cwd())
    sys.path.insert(0, here)
    try:
        yield
    finally:
        if here in sys.path:
            sys.path.remove(here)


def _find_factory(name: str) -> Callable[[], nn.Module]:
    """The factory that `package.module:factory` names. What the user's own code raises keeps its traceback."""
    module_name, _, attribute = name.partition(":")
    if not module_name or not attribute or not all(part.isidentifier() for part in module_name.split(".")):
        raise UserError(f"model '{name}': expected package.module:factory, for example my_models:swin_small")
    try:
        module = import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise
        raise UserError(
            f"model '{name}': no module '{module_name}' in {Path.cwd()} or among the installed packages"
        ) from None
    factory = getattr(module, attribute, None)
    if not callable(factory):
        close = get_close_matches(attribute, vars(module), 1)
        hint = f"; did you mean '{close[0]}'?" if close else ""
        raise UserError(f"model '{name}': module '{module_name}' has no function '{attribute}'{hint}")
    return factory  # type: ignore[no-any-return]


# --- pretrained weights from the Hugging Face hub ---


def _load_pretrained(full: str, config: Mapping[str, Any]) -> nn.Module:
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


# --- checkpoint files ---


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


def _load_into(model: nn.Module, state: State, name: str, weights: str | Path) -> None:
    """Copy the state into the model; keys of the original repositories are translated as timm does.

    Raises:
        UserError: the checkpoint is of another architecture or image size.
    """
    own = model.state_dict()
    if state.keys() != own.keys():
        state = _translated(model, state)
    problem = _difference(own, state)
    if problem:
        raise UserError(f"checkpoint {weights} is of another architecture than {name}: {problem}")
    model.load_state_dict(state)


def _translated(model: nn.Module, state: State) -> State:
    """timm's translation of other repositories' key names, unless it fails or would resample a tensor."""
    from timm.models import SwinTransformer, swin_transformer, vision_transformer

    try:
        if isinstance(model, SwinTransformer):
            found = swin_transformer.checkpoint_filter_fn(dict(state), model)
        else:
            found = vision_transformer.checkpoint_filter_fn(dict(state), model, adapt_layer_scale=True)
    except Exception:  # another architecture can break timm's filter anywhere; the comparison that follows reports it
        return state
    resampled = any(key in state and value.numel() != state[key].numel() for key, value in found.items())
    return state if resampled else found


def _difference(own: State, state: State) -> str | None:
    """What keeps `state` from fitting `own`, in one line."""
    missing, unexpected = [k for k in own if k not in state], [k for k in state if k not in own]
    shapes = [k for k in own if k in state and own[k].shape != state[k].shape]
    found = []
    if missing:
        found.append(f"{len(missing)} tensors are missing (first {missing[0]})")
    if unexpected:
        found.append(f"{len(unexpected)} are unexpected (first {unexpected[0]})")
    if shapes:
        key = shapes[0]
        found.append(f"{key} has shape {tuple(state[key].shape)}, expected {tuple(own[key].shape)}")
    return ", ".join(found) or None


# --- what a module reads ---


def image_shape(model: nn.Module) -> tuple[int, int, int]:
    """(C, H, W) of the images that a timm model takes, quantized or not.

    Raises:
        UserError: it has no fixed image size.
    """
    embed: Any = model.patch_embed
    if embed.img_size is None:
        raise UserError("the model has no fixed image size (patch_embed.img_size is None): create it with img_size=...")
    height, width = embed.img_size
    kernels = next(tensor for tensor in embed.proj.state_dict().values() if tensor.ndim == 4)
    return kernels.shape[1], height, width


def _per_channel(values: Iterable[float], channels: int) -> tuple[float, ...]:
    """One number a channel; the average for every channel where their number differs."""
    found = tuple(float(value) for value in values)
    return found if len(found) == channels else (sum(found) / len(found),) * channels
