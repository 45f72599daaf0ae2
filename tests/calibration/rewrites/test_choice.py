"""Switches are taken where they clearly lower the loss, the best first, each beside those before it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from fimaq_deploy.calibration.rewrites.choice import choose, is_clear, kept

IMAGES = 16
NOISE = torch.randn(IMAGES, generator=torch.Generator().manual_seed(0))
STEADY = 0.01 * (NOISE - NOISE.mean()).double()  # of each image, whatever is tried


def by_table(table: dict[tuple[str, ...], float], asked: list[tuple[str, ...]]) -> object:
    """Losses of a table, to which each trial adds a little of its own."""

    def losses(settings: tuple[str, ...]) -> Tensor:
        asked.append(settings)
        own = torch.randn(IMAGES, generator=torch.Generator().manual_seed(len(asked)), dtype=torch.float64)
        return table[settings] + STEADY + 1e-3 * (own - own.mean())

    return losses


def test_the_best_comes_first_and_others_have_to_help_beside_it() -> None:
    table = {(): 1.0, ("a",): 0.8, ("b",): 0.5, ("c",): 1.2, ("d",): 0.7, ("b", "d"): 0.55, ("b", "a"): 0.4}
    asked: list[tuple[str, ...]] = []
    found = choose(["a", "b", "c", "d"], by_table(table, asked))  # type: ignore[arg-type]
    assert found.taken == ("b", "a") and found.images == IMAGES and found.loss == pytest.approx(1)
    assert asked == [(), ("a",), ("b",), ("c",), ("d",), ("b", "d"), ("b", "a")]
    last = next(trial for trial in found.trials if trial.setting == "a")
    assert last.beside == ("b",) and last.loss == pytest.approx(0.4) and last.gain == pytest.approx(0.1)
    left = next(trial for trial in found.trials if trial.setting == "d")
    assert not left.taken and left.beside == ("b",) and left.gain < 0
    assert [trial.setting for trial in found.trials if not trial.beside and not trial.taken] == ["c"]


def test_nothing_is_taken_where_nothing_helps() -> None:
    found = choose(["a"], by_table({(): 1.0, ("a",): 1.0}, []))  # type: ignore[arg-type]
    assert found.taken == () and [trial.taken for trial in found.trials] == [False]


def test_a_gain_within_the_noise_or_in_one_half_alone_or_of_a_trifle_is_not_clear() -> None:
    before = torch.ones(IMAGES, dtype=torch.float64)
    steady = torch.linspace(0.09, 0.11, IMAGES, dtype=torch.float64)
    assert is_clear(before, before - steady)
    assert not is_clear(before, before - 0.1 - 2 * NOISE), "noise"
    first = torch.where(torch.arange(IMAGES) < IMAGES // 2, 0.3, -0.01).double()
    assert not is_clear(before, before - first), "one half"
    assert not is_clear(before, before - 0.1 * steady), "a trifle"
    assert not is_clear(before, before) and not is_clear(before, before + steady)


def test_what_was_measured_is_kept_for_the_same_question(tmp_path: Path) -> None:
    path, asked = tmp_path / "rewrites.json", []
    measured = by_table({(): 1.0, ("a",): 0.5}, asked)
    first = [kept(measured, path, "one")(settings) for settings in ((), ("a",))]  # type: ignore[arg-type]
    again = [kept(measured, path, "one")(settings) for settings in ((), ("a",))]  # type: ignore[arg-type]
    assert len(asked) == 2 and all(map(torch.equal, first, again))
    kept(measured, path, "another")(())  # type: ignore[arg-type]
    assert len(asked) == 3
    kept(measured, None, "another")(())  # type: ignore[arg-type]
    assert len(asked) == 4
