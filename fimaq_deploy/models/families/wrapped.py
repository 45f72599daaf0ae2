"""Models inside of others: DataParallel, torch.compile, a module of one's own around one network.

What is quantized is the model inside. Whatever a wrapper of somebody's own does to the answer besides is noticed before
anything is quantized, because the copy is run beside the wrapper (`calibration.network.fidelity`).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn

from fimaq_deploy.models.families import family_of, find_family
from fimaq_deploy.models.families.attention import ExplicitAttention
from fimaq_deploy.models.families.chain import Shape
from fimaq_deploy.models.families.family import Family
from fimaq_deploy.models.families.roles import Heads, NormReaders, Stage, Stream
from fimaq_deploy.models.families.source import Answering, Source

# Those that answer what the model inside does, and where they have it: data parallel ones, and torch.compile's.
_TRANSPARENT = {"DataParallel": "module", "DistributedDataParallel": "module", "OptimizedModule": "_orig_mod"}


def transparent(model: Any) -> Any:
    """The model inside wrappers of torch that change nothing about what it answers."""
    while type(model).__module__.startswith("torch.") and type(model).__name__ in _TRANSPARENT:
        model = getattr(model, _TRANSPARENT[type(model).__name__])
    return model


def innermost(model: Any) -> Any:
    """The model of a known family inside of any wrappers; the model itself where it is none."""
    inner = transparent(model)
    while isinstance(inner, nn.Module) and isinstance(find_family(inner), Wrapped):
        inside = _only_part(inner)
        if inside is None:
            break
        inner = transparent(inside)
    return inner


def _only_part(model: nn.Module) -> nn.Module | None:
    """The one part that holds all numbers of a module."""
    if any(True for _ in (*model.parameters(recurse=False), *model.buffers(recurse=False))):
        return None
    parts = [part for part in model.children() if any(True for _ in (*part.parameters(), *part.buffers()))]
    return parts[0] if len(parts) == 1 else None


class Wrapped(Family):
    """Answers of a wrapper what the family of the model inside answers."""

    name = "wrapped"
    kinds = ()

    def claims(self, model: object) -> bool:
        if not isinstance(model, nn.Module):
            return False
        inside = transparent(model)
        if inside is not model:
            return find_family(inside) is not None
        part = _only_part(model)
        return part is not None and find_family(part) is not None

    def as_chain(self, model: nn.Module, shape: Shape | None = None) -> nn.Module:
        inner = innermost(model)
        return family_of(inner).as_chain(inner, shape)

    def original(self, model: nn.Module) -> nn.Module:
        """A wrapper of somebody's own is run itself: it may do more than the model inside."""
        inside, inner = transparent(model), innermost(model)
        family = family_of(inner)
        if inside is inner:
            return family.original(inner)
        answer = family.answer(inner) if isinstance(family, Source) else ""
        return Answering(inside, answer).train(model.training) if answer else inside

    def check(self, model: nn.Module, what: str = "the model") -> None:
        inner = innermost(model)
        family_of(inner).check(inner, what)

    def stages(self, model: nn.Module) -> list[Stage]:
        inner = innermost(model)
        return family_of(inner).stages(inner)

    def image_shape(self, model: nn.Module) -> Shape:
        inner = innermost(model)
        return family_of(inner).image_shape(inner)

    def heads(self, model: nn.Module) -> Iterator[Heads]:
        inner = innermost(model)
        return family_of(inner).heads(inner)

    def spelled_out(self, attention: nn.Module) -> ExplicitAttention:
        raise NotImplementedError("the copy is of the model inside, whose family spells its attention out")

    def norms(self, model: nn.Module) -> Iterator[NormReaders]:
        inner = innermost(model)
        return family_of(inner).norms(inner)

    def stream(self, model: nn.Module) -> Stream | str:
        inner = innermost(model)
        return family_of(inner).stream(inner)

    def head_reads_a_mean(self, model: nn.Module) -> bool:
        inner = innermost(model)
        return family_of(inner).head_reads_a_mean(inner)

    def classes(self, model: nn.Module) -> int:
        inner = innermost(model)
        return family_of(inner).classes(inner)

    def translated(self, model: nn.Module, state: dict[str, Tensor]) -> dict[str, Tensor]:
        return state


FAMILY = Wrapped()
