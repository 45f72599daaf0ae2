"""What a family of models answers. A new one derives from `Family` in a file of its own and edits nothing else."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, Literal

from torch import Tensor, nn

from fimaq_deploy.errors import UserError
from fimaq_deploy.models.families.attention import ExplicitAttention
from fimaq_deploy.models.families.roles import Heads, NormReaders, Stage, Stream

Position = Literal["patch_embed", "head"]


class Family(ABC):
    """One architecture, described by role.

    `stages`, `image_shape`, `position` and `head_reads_a_mean` are also asked of quantized copies: their Linear and
    convolution layers are quantized ones, and their attention is what `spelled_out` made of it.

    kinds: what its models are called in messages. rewrites: the exact rewrites that a recipe gets that does not say.
    """

    name: ClassVar[str]
    kinds: ClassVar[tuple[str, ...]]
    rewrites: ClassVar[Mapping[str, bool]] = {"norm": True, "heads": False, "values": False, "rotation": False}

    @abstractmethod
    def claims(self, model: object) -> bool:
        """Whether a model is one of this family's."""

    def as_chain(self, model: nn.Module, shape: tuple[int, int, int] | None = None) -> nn.Module:
        """What is quantized in a model's place, for images (C, H, W); the model's own size if None.

        It shares the model's numbers. The model itself where its blocks are a chain already.

        Raises:
            UserError: the model takes no images of this shape.
        """
        return model

    def original(self, model: nn.Module) -> nn.Module:
        """The model as what is deployed is compared with: images to that output alone, by the name it has there."""
        return model

    def reply(self, model: nn.Module, tensors: Sequence[Tensor]) -> Any:
        """What the model itself returns, made of what its copy computes: one tensor, or several in their order."""
        return tensors[0]

    @abstractmethod
    def stages(self, model: nn.Module) -> list[Stage]:
        """The chain of blocks, sharing the model's modules: its output is the last one's, of the others in turn.

        The last stage also has `features`, the same up to the penultimate feature.
        """

    @abstractmethod
    def image_shape(self, model: nn.Module) -> tuple[int, int, int]:
        """(C, H, W) of the images that a model takes.

        Raises:
            UserError: it has no fixed image size.
        """

    @abstractmethod
    def heads(self, model: nn.Module) -> Iterator[Heads]:
        """Every attention whose products can be quantized, in the model's order."""

    @abstractmethod
    def spelled_out(self, attention: nn.Module) -> ExplicitAttention:
        """An attention module of `heads` as explicit products that compute the same."""

    @abstractmethod
    def norms(self, model: nn.Module) -> Iterator[NormReaders]:
        """The norms in blocks that only Linear layers read, so that channels may be scaled between them."""

    def stream(self, model: nn.Module) -> Stream | str:
        """The residual stream, or why it cannot be rotated exactly, naming the module."""
        return f"{type(model).__name__}: the residual stream of this family cannot be rotated"

    def position(self, layer: str) -> Position | None:
        """Whether a layer is a patch embedding or a classifier head, which recipes have fields for."""
        if layer.startswith("patch_embed"):
            return "patch_embed"
        return "head" if layer.split(".")[0] == "head" else None

    def head_reads_a_mean(self, model: nn.Module) -> bool:
        """Whether the head's input is a mean over tokens, and not one of them."""
        return False

    def kept(self, model: nn.Module) -> dict[str, str]:
        """Layers that stay in high precision whatever the recipe says, each with the reason."""
        return {}

    def prepare(self, copy: nn.Module) -> None:
        """What else a copy needs that will be quantized, in place. Nothing, by default."""
        return

    def check(self, model: nn.Module, what: str = "the model") -> None:
        """Refuse what the quantized copy would compute differently.

        Raises:
            UserError: names the first module that is not understood; `what` is the model itself.
        """
        for name, module in model.named_modules():
            if isinstance(module, nn.Conv2d) and self.position(name) != "patch_embed":
                raise UserError(f"module '{name}': a convolution outside the patch embedding is not understood")

    def classes(self, model: nn.Module) -> int:
        """The number of logits; 0 for a model without a classifier."""
        return int(getattr(model, "num_classes", 0) or 0)

    def translated(self, model: nn.Module, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """A checkpoint's tensors under this family's names, or as they are."""
        return state


def expect(name: str, module: object, types: Iterable[type[nn.Module]]) -> None:
    """Refuse a module of another class, subclasses too: they may compute something else.

    Raises:
        UserError: names the module and the classes.
    """
    if type(module) not in tuple(types):
        expected = " or ".join(kind.__name__ for kind in types)
        raise UserError(f"module '{name}' is a {type(module).__name__}, which is not understood: expected {expected}")
