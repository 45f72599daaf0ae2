"""Which tensors of a checkpoint are the model's.

Training codes wrap weights in any mapping and put any prefix before their names. So no list of wrappers is kept: every
tensor has a full name, the names that lead to it joined by dots, and a *set* of weights is a prefix of full names after
which the model's own names follow. The set that fits the model best is taken. Of sets that fit alike, the averaged one
is (EMA, as timm prefers it, or a teacher), unless another is asked for: `file.pth#state_dict`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fimaq_deploy.errors import UserError, shown
from fimaq_deploy.models.checkpoint import State, tensors
from fimaq_deploy.models.translations import SCHEMES

if TYPE_CHECKING:
    from torch import Tensor

# Names that wrappers put *between* those of the modules: torch.compile, FSDP, activation checkpoints, pickled modules.
_BETWEEN = frozenset(
    {"_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "_modules", "_parameters", "_buffers"}
)
_AVERAGED = ("ema", "average", "avg", "swa", "teacher")
_ENOUGH = 0.6  # of the model's names: fewer are a coincidence, such as the blocks of another architecture
# What only training uses, when it lies where nothing else than the model's own tensors lie.
_TRAINING_ONLY = (
    "mask_token",
    "decoder",
    "predictor",
    "projector",
    "criterion",
    "loss",
    "num_batches_tracked",
    "queue",
)


@dataclass(frozen=True)
class Found:
    """One set of weights in a checkpoint.

    label: its prefix without the last dot; empty for the checkpoint itself. state: under the model's names.
    unused: names that only training uses. scheme: whose names they had, where not timm's.
    """

    label: str
    state: State
    unused: tuple[str, ...] = ()
    scheme: str = ""

    @property
    def averaged(self) -> bool:
        return any(word in self.label.lower() for word in _AVERAGED)


@dataclass(frozen=True)
class Taken:
    """The set that was taken. others: labels of those that fit the model as well."""

    found: Found
    others: tuple[str, ...] = ()

    def note(self, file: object) -> str | None:
        """What a report should say; None where there was nothing to choose."""
        found, parts = self.found, []
        if found.label:
            parts.append(f"'{found.label}' was taken")
        if self.others:
            parts.append(f"there too: {', '.join(f'{file}#{label}' for label in self.others)}")
        if found.scheme:
            parts.append(f"translated from {found.scheme}")
        if found.unused:
            parts.append(f"{len(found.unused)} tensors that only training uses were left out (first {found.unused[0]})")
        return f"weights of {file}: {'; '.join(parts)}" if parts else None


def find_weights(content: Any, own: Mapping[str, Tensor], path: object, choice: str | None = None) -> Taken:
    """The weights of a checkpoint that fit a model.

    own: the model's names and tensors, of which only the shapes matter. choice: the label of the set to take.

    Raises:
        UserError: there is no tensor, or no set with that label.
    """
    named = {_full_name(names): tensor for names, tensor in tensors(content)}
    containers = {_full_name(names): _container(names) for names, _ in tensors(content)}
    if not named:
        raise UserError(f"checkpoint {path} holds no tensors: expected the state dict of a model")
    candidates = _candidates(named, containers, own) or [_largest(named, containers)]
    chosen = [one for one in candidates if choice is None or _is_chosen(one.label, choice)]
    if not chosen:
        labels = ", ".join(sorted({one.label or "the file itself" for one in candidates})[:6])
        raise UserError(f"checkpoint {path} has no weights '{shown(choice)}' that fit the model: it has {labels}")
    best = max(_fit(one, own) for one in chosen)
    equal = sorted((one for one in chosen if _fit(one, own) == best), key=lambda one: (not one.averaged, one.label))
    return Taken(equal[0], tuple(one.label for one in equal[1:] if one.label))


def _full_name(names: Iterable[str]) -> str:
    return ".".join(part for name in names for part in name.split(".") if part not in _BETWEEN)


def _container(names: tuple[str, ...]) -> tuple[str, ...]:
    """Of a pickled module all tensors lie in one."""
    return tuple(names[: names.index("_modules")] if "_modules" in names else names[:-1])


def _is_chosen(label: str, choice: str) -> bool:
    return label == choice or label.startswith(f"{choice}.")


def _candidates(named: State, containers: Mapping[str, tuple[str, ...]], own: Mapping[str, Tensor]) -> list[Found]:
    found = [_under(prefix, named, containers, own) for prefix in _prefixes(named, own)]
    for scheme in SCHEMES:
        found += [
            Found(prefix.rstrip("."), _as_register(scheme.translate(named, prefix), own), scheme=scheme.title)
            for prefix in scheme.prefixes(named)
        ]
    return [one for one in found if _fit(one, own)[1] >= _ENOUGH * len(own)]


def _largest(named: State, containers: Mapping[str, tuple[str, ...]]) -> Found:
    """The mapping with the most tensors: of another model, but what a user calls its weights."""
    (home, _), *_ = Counter(containers.values()).most_common(1)
    prefix = "".join(f"{part}." for part in home)
    inside = {name.removeprefix(prefix): named[name] for name, container in containers.items() if container == home}
    return Found(prefix.rstrip("."), inside)


def _as_register(state: State, own: Mapping[str, Tensor]) -> State:
    """A distillation token whose head is not used is a register token."""
    is_one = "dist_token" in state and "dist_token" not in own and "reg_token" in own
    return {"reg_token" if is_one and name == "dist_token" else name: tensor for name, tensor in state.items()}


def _prefixes(named: State, own: Mapping[str, Tensor]) -> list[str]:
    """What stands before the model's own names, where it stands before at least half as many as anything does."""
    votes = Counter(prefix for name in named for prefix in _splits(name) if name[len(prefix) :] in own)
    most = max(votes.values(), default=0)
    return [prefix for prefix, count in votes.items() if 2 * count >= most]


def _splits(name: str) -> list[str]:
    """Every beginning of a name that ends in a dot, and none."""
    parts = name.split(".")
    return ["".join(f"{part}." for part in parts[:end]) for end in range(len(parts))]


def _under(prefix: str, named: State, containers: Mapping[str, tuple[str, ...]], own: Mapping[str, Tensor]) -> Found:
    """The tensors after a prefix, in the mappings that hold some of the model's, and a head that lies further out."""
    inside = {name for name in named if name.startswith(prefix)}
    homes = {containers[name] for name in inside if name[len(prefix) :] in own}
    state = {name[len(prefix) :]: named[name] for name in inside if containers[name] in homes}
    unused = tuple(sorted(name for name in state if name not in own and _is_unused(name, state[name])))
    state = {name: tensor for name, tensor in state.items() if name not in unused}
    return Found(prefix.rstrip("."), {**_further_out(prefix, named, own, state), **state}, unused)


def _is_unused(name: str, tensor: Tensor) -> bool:
    """Whether a tensor that the model lacks is none of its weights: integers count or draw, they do not weigh."""
    return name.startswith(_TRAINING_ONLY) or not tensor.is_floating_point()


def _further_out(prefix: str, named: State, own: Mapping[str, Tensor], state: State) -> State:
    """Tensors of the model that lie beside its backbone: {"backbone.blocks...": ..., "head.weight": ...}."""
    outer = _splits(prefix.rstrip(".")) if prefix else []
    missing = [name for name in own if name not in state]
    found = {}
    for name in missing:
        beside = next((f"{one}{name}" for one in reversed(outer) if f"{one}{name}" in named), None)
        if beside:
            found[name] = named[beside]
    return found


def _fit(found: Found, own: Mapping[str, Tensor]) -> tuple[int, int]:
    """How many of the model's tensors are there with their shapes, and how many at all."""
    named = [name for name in own if name in found.state]
    return sum(found.state[name].shape == own[name].shape for name in named), len(named)
