"""`rewrites: auto`: the switches that a model gets, by what its outputs lose with each on images that set no scale.

Each switch is tried alone, and those that clearly lower the loss are added one after the other, the best first, as long
as each still does. Clearly: by more than three standard errors of the difference, image by image, in both halves of the
images, and by a share of the loss that is worth a rewrite.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from fimaq_deploy.files import write_whole

FEWEST_IMAGES = 8  # a half of them is the least that a spread is estimated from
_LEAST_SHARE = 0.02  # of the loss
_ERRORS = 3  # standard errors: a switch of five is seldom taken by chance

# Of settings such as "rewrites.values=true": (images,), each image's loss, the halves one behind the other.
Losses = Callable[[tuple[str, ...]], Tensor]


@dataclass(frozen=True)
class Trial:
    """A setting beside those that were taken before it.

    loss: mean over the images. gain: by how much it is lower. noise: three standard errors of the gain.
    """

    setting: str
    beside: tuple[str, ...]
    loss: float
    gain: float
    noise: float
    taken: bool


@dataclass(frozen=True)
class Choice:
    """What was measured. images: how many. loss: of the family's own rewrites."""

    images: int
    loss: float
    trials: tuple[Trial, ...]

    @property
    def taken(self) -> tuple[str, ...]:
        """The settings that were taken."""
        return tuple(trial.setting for trial in self.trials if trial.taken)


def choose(settings: Sequence[str], losses: Losses) -> Choice:
    """Try settings and take those that clearly lower the loss."""
    before = start = losses(())
    alone = {setting: losses((setting,)) for setting in settings}
    promising = sorted(
        (one for one in settings if is_clear(start, alone[one])), key=lambda one: float(alone[one].mean())
    )
    trials = [_trial(one, (), start, alone[one], False) for one in settings if one not in promising]
    taken: list[str] = []
    for setting in promising:
        after = losses((*taken, setting)) if taken else alone[setting]
        lower = is_clear(before, after)
        trials.append(_trial(setting, tuple(taken), before, after, lower))
        if lower:
            before = after
            taken.append(setting)
    return Choice(len(start), float(start.mean()), tuple(trials))


def is_clear(before: Tensor, after: Tensor) -> bool:
    """Whether losses (images,) are lower beyond what could be chance."""
    gains = before - after
    halves = gains.split((len(gains) + 1) // 2)
    least = max(_noise(gains), _LEAST_SHARE * float(before.mean()))
    return all(float(half.mean()) > 0 for half in halves) and float(gains.mean()) > least


def _noise(gains: Tensor) -> float:
    return _ERRORS * float(gains.std()) / len(gains) ** 0.5


def _trial(setting: str, beside: tuple[str, ...], before: Tensor, after: Tensor, taken: bool) -> Trial:
    gains = before - after
    return Trial(setting, beside, float(after.mean()), float(gains.mean()), _noise(gains), taken)


def kept(losses: Losses, path: Path | None, identity: str) -> Losses:
    """The same, with what is measured in a file, so that it is not measured again.

    path: None keeps nothing. identity: of everything that decides the figures; those of another one are dropped.
    """
    if path is None:
        return losses
    found = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    known: dict[str, list[float]] = found["losses"] if found.get("identity") == identity else {}

    def remembered(settings: tuple[str, ...]) -> Tensor:
        name = " ".join(settings)
        if name not in known:
            known[name] = losses(settings).tolist()
            write_whole(path, json.dumps({"identity": identity, "losses": known}).encode())
        return torch.tensor(known[name], dtype=torch.float64)

    return remembered
