"""A timm model made to fit a checkpoint, and a checkpoint's tensors made to fit a model of another image size.

What a user asks for goes first. What is left is read from the tensors: the number of classes from the head, none where
there is no head; the channels from the first convolution; the image size from the position embedding.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import isqrt
from typing import TYPE_CHECKING, Any

from fimaq_deploy.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor, nn

State = dict[str, "Tensor"]
Size = tuple[int, int]

_POSITIONS = "pos_embed"
_TABLE = "relative_position_bias_table"


@dataclass(frozen=True)
class Sizes:
    """What a user asks a model to read: image_size (height, width) and in_chans; None for what it reads anyway."""

    image_size: Size | None = None
    in_chans: int | None = None

    def options(self) -> dict[str, Any]:
        """As `timm.create_model` takes them."""
        asked = {"img_size": self.image_size, "in_chans": self.in_chans}
        return {name: value for name, value in asked.items() if value is not None}


def options_for(reference: nn.Module, state: Mapping[str, Tensor], asked: Sizes) -> dict[str, Any]:
    """How `timm.create_model` has to make a model that such tensors fit.

    reference: the model as timm makes it without being asked for anything.
    """
    own, config = reference.state_dict(), _config(reference)
    found: dict[str, Any] = {"num_classes": _classes(own, state, config)}
    channels = _channels(own, state, config)
    if channels:
        found["in_chans"] = channels
    size = _image_size(reference, own, state)
    if size:
        found["img_size"] = size
    return {**{name: value for name, value in found.items() if value is not None}, **asked.options()}


def resampled(model: nn.Module, state: State, asked: Sizes) -> tuple[State, list[str]]:
    """The tensors with positions and channels as the model has them, by timm's own functions, and what was done.

    Only what the user asked for is changed: a checkpoint of another size is otherwise one of another model.
    """
    own, found, notes = model.state_dict(), dict(state), []
    changed = [name for name in state if name in own and state[name].shape != own[name].shape]
    for name in changed:
        if asked.image_size and name == _POSITIONS:
            found[name] = _positions(model, state[name])
        elif asked.image_size and name.endswith(_TABLE):
            found[name] = _table(model, name, state[name])
        elif asked.in_chans and name == f"{_config(model).get('first_conv')}.weight":
            found[name] = _adapted(state[name], asked.in_chans)
        else:
            continue
        notes.append(f"{name} from {_shape(state[name])} to {_shape(found[name])}")
    more = f" and {len(notes) - 1} more" if len(notes) > 1 else ""
    return found, [f"resampled for the size that was asked for: {notes[0]}{more}"] if notes else []


def _shape(tensor: Tensor) -> str:
    return "×".join(map(str, tensor.shape))


def _config(model: nn.Module) -> Mapping[str, Any]:
    config: Any = getattr(model, "pretrained_cfg", None)
    return config or {}


def _classes(own: Mapping[str, Tensor], state: Mapping[str, Tensor], config: Mapping[str, Any]) -> int | None:
    """Of the head in the checkpoint; 0 without one, None where the model has none either."""
    names = config.get("classifier") or ()
    heads = [f"{name}.weight" for name in ([names] if isinstance(names, str) else names)]
    if not any(head in own for head in heads):
        return None
    found = [len(state[head]) for head in heads if head in state and state[head].ndim == 2]
    return found[0] if found else 0


def _channels(own: Mapping[str, Tensor], state: Mapping[str, Tensor], config: Mapping[str, Any]) -> int | None:
    name = f"{config.get('first_conv')}.weight"
    if name not in own or name not in state or state[name].ndim != 4 or own[name].ndim != 4:
        return None
    return None if state[name].shape[1] == own[name].shape[1] else int(state[name].shape[1])


def _image_size(model: Any, own: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> Size | None:
    """Of a square image whose patches have a position each; None where it is that of the model, or nothing says."""
    mine, theirs = own.get(_POSITIONS), state.get(_POSITIONS)
    if mine is None or theirs is None or mine.ndim != 3 or theirs.ndim != 3 or mine.shape[1] == theirs.shape[1]:
        return None
    height, width = model.patch_embed.grid_size
    tokens = theirs.shape[1] - (mine.shape[1] - height * width)
    side = isqrt(max(tokens, 0))
    if not side or side * side != tokens:
        raise UserError(f"the checkpoint has positions for {tokens} patches, no square: name the size by --image-size")
    patch = model.patch_embed.patch_size
    return side * patch[0], side * patch[1]


def _positions(model: Any, positions: Tensor) -> Tensor:
    from timm.layers import resample_abs_pos_embed

    height, width = model.patch_embed.grid_size
    prefix = model.state_dict()[_POSITIONS].shape[1] - height * width
    return resample_abs_pos_embed(positions, new_size=[height, width], num_prefix_tokens=prefix)


def _table(model: Any, name: str, table: Tensor) -> Tensor:
    from timm.layers import resize_rel_pos_bias_table

    module = model.get_submodule(name.removesuffix(f".{_TABLE}"))
    return resize_rel_pos_bias_table(
        table, new_window_size=module.window_size, new_bias_shape=module.relative_position_bias_table.shape
    )


def _adapted(weight: Tensor, channels: int) -> Tensor:
    from timm.models import adapt_input_conv

    return adapt_input_conv(channels, weight)
