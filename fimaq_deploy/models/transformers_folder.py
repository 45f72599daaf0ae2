"""Folders of models that `transformers` has and timm has not: made by `transformers` itself, which is the extra for it.

A configuration names its class; of a model of two towers the one for images is made. Another image size is reached as
`transformers` does it, by its own resampling of positions, and said.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fimaq_deploy.errors import UserError, shown
from fimaq_deploy.models.checkpoint import read_checkpoint, split_choice
from fimaq_deploy.models.fit import Sizes
from fimaq_deploy.models.weights import find_weights

if TYPE_CHECKING:
    from torch import Tensor, nn

# By `model_type`, the class that is made where `architectures` names none of the others.
_CLASSES = {
    "beit": ("BeitModel", "BeitForImageClassification"),
    "clip": ("CLIPVisionModelWithProjection",),
    "clip_vision_model": ("CLIPVisionModel", "CLIPVisionModelWithProjection"),
    "data2vec-vision": ("Data2VecVisionModel", "Data2VecVisionForImageClassification"),
    "dinov2": ("Dinov2Model", "Dinov2ForImageClassification"),
    "dinov2_with_registers": ("Dinov2WithRegistersModel", "Dinov2WithRegistersForImageClassification"),
    "dinov3_vit": ("DINOv3ViTModel",),
    "ijepa": ("IJepaModel", "IJepaForImageClassification"),
    "siglip": ("SiglipVisionModel",),
    "siglip_vision_model": ("SiglipVisionModel",),
    "siglip2": ("Siglip2VisionModel",),
    "siglip2_vision_model": ("Siglip2VisionModel",),
    "swin": ("SwinModel", "SwinForImageClassification"),
    "swinv2": ("Swinv2Model", "Swinv2ForImageClassification"),
    "vit_msn": ("ViTMSNModel", "ViTMSNForImageClassification"),
}
TYPES = tuple(_CLASSES)


def make_from_folder(
    folder: Path, config: Mapping[str, Any], weights: str | Path, sizes: Sizes
) -> tuple[nn.Module, list[str]]:
    """The model of a folder in eval mode, and what is to be said about it.

    config: what `config.json` holds. weights: "pretrained" for those of the folder, "random", or a checkpoint.

    Raises:
        UserError: `transformers` is not installed, the folder's files do not fit each other, or the model cannot have
            the size that is asked for.
    """
    kind = _class_of(config)
    library = _transformers(folder, config)
    notes: list[str] = []
    try:
        with _quiet(library):
            if weights == "pretrained":
                model, notes = _pretrained(getattr(library, kind), folder)
            else:
                settings = getattr(library, kind).config_class.from_pretrained(folder, local_files_only=True)
                model = getattr(library, kind)(settings)
    except (OSError, ValueError, TypeError, RuntimeError, KeyError, AttributeError, ZeroDivisionError) as error:
        raise UserError(f"folder {folder} cannot be read as a {kind}: {shown(' '.join(str(error).split()))}") from error
    if weights not in ("pretrained", "random"):
        notes += _load(model, weights, kind)
    return model.eval(), [*notes, *_fitted(model, sizes)]


def _class_of(config: Mapping[str, Any]) -> str:
    known, asked = _CLASSES[str(config["model_type"])], config.get("architectures") or ()
    return next((name for name in known if name in asked), known[0])


def _transformers(folder: Path, config: Mapping[str, Any]) -> Any:
    try:
        import transformers
    except ImportError:
        kind = shown(config.get("model_type"))
        raise UserError(
            f"folder {folder} holds a model of type {kind}, which needs transformers: pip install "
            "'fimaq-deploy[transformers]'"
        ) from None
    return transformers


def _pretrained(kind: Any, folder: Path) -> tuple[Any, list[str]]:
    """With the folder's weights; without a pooler where they hold none."""
    model, said = kind.from_pretrained(folder, local_files_only=True, output_loading_info=True)
    missing = sorted(said["missing_keys"])
    if missing and all("pooler" in name for name in missing) and hasattr(model, "pooler"):
        model, said = kind.from_pretrained(
            folder, local_files_only=True, output_loading_info=True, add_pooling_layer=False
        )
        missing = sorted(said["missing_keys"])
    if missing:
        raise UserError(
            f"folder {folder} holds no whole {kind.__name__}: {len(missing)} tensors are missing (first {missing[0]})"
        )
    unused = sorted(said["unexpected_keys"])
    told = f"{len(unused)} tensors of {folder} that a {kind.__name__} has not were left out"
    return model, [f"{told} (first {unused[0]})"] if unused else []


def _load(model: nn.Module, weights: str | Path, kind: str) -> list[str]:
    """A checkpoint's tensors under the names of the module itself."""
    path, choice = split_choice(weights)
    own = model.state_dict()
    taken = find_weights(read_checkpoint(path), own, path, choice)
    wrong = [name for name in own if name not in taken.found.state or taken.found.state[name].shape != own[name].shape]
    if wrong:
        raise UserError(
            f"checkpoint {weights} is of another architecture than {kind}: {len(wrong)} tensors are missing or of "
            f"another shape (first {wrong[0]})"
        )
    model.load_state_dict({name: taken.found.state[name] for name in own})
    return [note for note in [taken.note(path)] if note]


# --- sizes ---


def _fitted(model: Any, sizes: Sizes) -> list[str]:
    """Other channels and another image size, in place, and what was done."""
    notes = []
    if sizes.in_chans and sizes.in_chans != model.config.num_channels:
        notes.append(_with_channels(model, sizes.in_chans))
    own = getattr(model.config, "image_size", None)  # a model of any aspect ratio has none
    if sizes.image_size and (own is None or sizes.image_size != _pair(own)):
        notes += _with_size(model, sizes.image_size)
    return [f"resampled for the size that was asked for: {' and '.join(notes)}"] if notes else []


def _pair(size: Any) -> tuple[int, int]:
    height, width = (size, size) if isinstance(size, int) else size
    return int(height), int(width)


def _with_channels(model: Any, channels: int) -> str:
    from timm.models import adapt_input_conv
    from torch import nn

    first = next((one for one in model.modules() if isinstance(one, nn.Conv2d)), None)
    if first is None:
        raise UserError(f"--in-chans {channels}: a {type(model).__name__} reads patches, and has its own channels")
    before = first.in_channels
    first.weight = nn.Parameter(adapt_input_conv(channels, first.weight.detach()))
    first.in_channels = channels
    for part in model.modules():
        if hasattr(part, "num_channels"):
            part.num_channels = channels
    model.config.num_channels = channels
    return f"the first convolution from {before} channels to {channels}"


def _with_size(model: Any, size: tuple[int, int]) -> list[str]:
    """Stored positions are resampled, if the module does not do so itself whenever it runs."""
    from torch import nn

    embeddings = next((one for one in model.modules() if hasattr(one, "interpolate_pos_encoding")), None)
    patch = _pair(model.config.patch_size)
    if any(side % width or side < width for side, width in zip(size, patch, strict=True)):
        raise UserError(f"--image-size {size[0]}x{size[1]}: the model has patches of {patch[0]}×{patch[1]}")
    told = []
    stored = None if embeddings is None else _stored(embeddings)
    if stored is not None and not type(model).__name__.startswith(("Dinov2", "Beit", "Data2Vec")):
        assert embeddings is not None
        before = stored.shape[-2]
        old, new = (side[0] // patch[0] * (side[1] // patch[1]) for side in (_pair(model.config.image_size), size))
        blank = stored.new_zeros(1, before - old + new, stored.shape[-1])
        found = embeddings.interpolate_pos_encoding(blank, *size).detach()
        if hasattr(embeddings, "position_embedding"):
            if type(embeddings).__name__.startswith("CLIP") and size[0] != size[1]:
                raise UserError(f"--image-size {size[0]}x{size[1]}: CLIP takes square images")
            embeddings.position_embedding = nn.Embedding.from_pretrained(found[0])
            embeddings.position_ids = embeddings.position_ids.new_tensor([range(found.shape[1])])
            embeddings.image_size = size[0]
        else:
            embeddings.position_embeddings = nn.Parameter(found, False)
            if hasattr(embeddings, "image_size"):
                embeddings.image_size = size
        told.append(f"position embeddings from {before} to {found.shape[1]}")
    for part in model.modules():
        if "PatchEmbeddings" in type(part).__name__ and hasattr(part, "image_size"):
            part.image_size = size
    model.config.image_size = size[0] if size[0] == size[1] else list(size)
    return told


def _stored(embeddings: Any) -> Tensor | None:
    if hasattr(embeddings, "position_embedding"):
        return embeddings.position_embedding.weight
    return getattr(embeddings, "position_embeddings", None)


@contextmanager
def _quiet(library: Any) -> Iterator[None]:
    """It prints a bar for its weights, and a table of what it did not use, which we say ourselves."""
    logging = library.utils.logging
    before, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(before)
        if bars:
            logging.enable_progress_bar()
