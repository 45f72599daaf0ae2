"""What reads the images of a model in which no encoder is known: said by its place and class, for messages.

Convolutional networks and hybrids of convolutions and attention are told from transformers that are merely not known.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate

from torch import nn

_IMAGES = (1, 3, 4)  # channels of grey, colour and colour with one more
_STEM = 4  # convolutions that make the patches of a hybrid, at most
_ADVICE = "take one with a vision transformer as its encoder (Swin, DINOv2), or quantize this one with other tools"


@dataclass(frozen=True)
class Reader:
    """The part of a model that its images go through first.

    name: empty for the model itself. mixed: whether it attends, too.
    """

    name: str
    module: nn.Module
    mixed: bool

    def told(self, what: str, model: object) -> str:
        """The line of an error; `what` is the model in it."""
        kind = "a hybrid of convolutions and attention" if self.mixed else "a convolutional network"
        part = f", whose images are read by '{self.name}', a {type(self.module).__name__}" if self.name else ""
        return f"{what} is a {type(model).__name__}{part}: {kind}, which this tool does not quantize: {_ADVICE}"


def reader_of(model: object) -> Reader | None:
    """The convolutional network or the hybrid that reads a model's images; None where it is neither.

    A convolutional network attends nowhere and has more convolutions than make patches; behind one, all attention is
    the rest's. A hybrid attends, and has more convolutions than that of its patches.
    """
    if not isinstance(model, nn.Module):
        return None
    names = [name for name, one in model.named_modules() if isinstance(one, nn.Conv2d) and one.in_channels in _IMAGES]
    if not names:
        return None
    outside = ["", *accumulate(names[0].split(".")[:-1], lambda left, right: f"{left}.{right}")]
    plain = [name for name in outside if not _attends(model.get_submodule(name))]
    if plain and _convolutions(model.get_submodule(plain[0])) > (_STEM if plain[0] else 1):
        name = _narrowed(model, plain)
        return Reader(name, model.get_submodule(name), False)
    attending = [name for name in outside if name not in plain]
    if not attending or _convolutions(model.get_submodule(attending[-1])) < 2:
        return None
    name = _owner(model, attending)
    return Reader(name, model.get_submodule(name), True)


def _attends(module: nn.Module) -> bool:
    kinds = (type(one).__name__.lower() for one in module.modules())
    return any("attention" in kind or "attn" in kind for kind in kinds)


def _convolutions(module: nn.Module) -> int:
    return sum(isinstance(one, nn.Conv2d) for one in module.modules())


def _narrowed(model: nn.Module, names: list[str]) -> str:
    """Of modules one in the other the innermost that has most of the convolutions of the one around it."""
    found = names[0]
    for name in names[1:]:
        inner = model.get_submodule(name)
        if isinstance(inner, nn.Sequential) or 2 * _convolutions(inner) <= _convolutions(model.get_submodule(found)):
            break
        found = name
    return found


def _owner(model: nn.Module, names: list[str]) -> str:
    """The innermost of them; of a list's entry, what owns the list."""
    listed = (nn.ModuleList, nn.Sequential)
    around = ["", *names[:-1]]
    for name, outer in zip(reversed(names), reversed(around), strict=True):
        if not any(isinstance(model.get_submodule(one), listed) for one in (name, outer)):
            return name
    return ""
