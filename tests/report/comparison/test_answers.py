"""Builds of any kind of output against each other, and against their own originals."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from fimaq_deploy import report as r
from fimaq_deploy.pipeline.builds import BuildResult
from fimaq_deploy.report.comparison.judge import Build, compare
from fimaq_deploy.report.comparison.records import Difference, Judgement, Thresholds
from fimaq_deploy.report.comparison.words import summary
from fimaq_deploy.report.predictions import Key, Predictions

Answering = Callable[..., r.Report]
CPU = "onnxruntime-cpu"
IMAGES = 400


def cosines(mean: float, seed: int = 0) -> np.ndarray:
    """Of single images; those of one seed vary alike."""
    return (mean + 0.01 * np.random.default_rng(seed).normal(size=IMAGES)).astype(np.float32)


def build(answering: Answering, name: str, mean: float, *, kept: bool = True, seed: int = 0) -> Build:
    found = cosines(mean, seed)
    half = 1.96 * 0.01 / np.sqrt(IMAGES)
    report = answering("embedding", cosine=(float(found.mean()), (mean - half, mean + half)))
    return Build(name, report, Predictions("same", means={Key(CPU, "output", "cosine"): found}) if kept else None)


def cosine(judgement: Judgement) -> Difference:
    (found,) = (d for d in judgement.comparisons[0].differences if d.figure == "cosine")
    return found


def test_how_close_to_the_original_both_builds_are_is_shown(answering: Answering) -> None:
    found = cosine(compare(build(answering, "new", 0.98), build(answering, "old", 0.99)))
    assert (found.of, found.verdict, round(found.loss, 3)) == ("original", "worse", 0.01)


def test_images_seen_by_both_make_a_small_loss_plain(answering: Answering) -> None:
    """A thousandth, where the figure of one build varies by as much: known where the images vary alike."""
    paired = cosine(compare(build(answering, "new", 0.989), build(answering, "old", 0.99)))
    assert paired.verdict == "worse"
    assert paired.interval == pytest.approx((0.001, 0.001), abs=1e-4)
    unpaired = cosine(compare(build(answering, "new", 0.989, kept=False), build(answering, "old", 0.99)))
    assert unpaired.verdict == "same"


def test_other_noise_of_the_same_size_is_no_loss(answering: Answering) -> None:
    assert cosine(compare(build(answering, "new", 0.99, seed=1), build(answering, "old", 0.99))).verdict == "same"


def test_a_ruined_build_fails_whatever_it_is_compared_with(answering: Answering) -> None:
    ruined = build(answering, "new", 0.5)
    for old in (build(answering, "old", 0.99), ruined):
        found = compare(ruined, old)
        assert found.exit_code == 1
        (text,) = found.broken
        assert text.startswith("ONNX Runtime CPU is ruined: cosine 0.4996 with PyTorch FP32, less than the 0.95 ")
        assert text in found.regressions
        assert "new is not close enough to its own original" in summary(found)


@pytest.mark.parametrize(("least", "code"), [(0.97, 0), (0.99, 1)])
def test_a_gate_on_the_new_build(answering: Answering, least: float, code: int) -> None:
    found = compare(build(answering, "new", 0.98), build(answering, "old", 0.98), Thresholds(min_cosine=least))
    assert (found.exit_code, len(found.broken)) == (code, code)
    assert f"--min-cosine {least:g}" in found.command


def test_a_gate_that_means_nothing_cannot_be_judged(answering: Answering) -> None:
    number = Build("new", answering("regression", concordance=0.99), None)
    found = compare(number, number, Thresholds(min_agreement=90))
    assert found.exit_code == 2
    assert found.obstacles == ["--min-agreement cannot be judged: output is measured as regression, which has none"]


@pytest.mark.parametrize(("kind", "figure", "values"), [("multilabel", "map", (80, 77)), ("regression", "mae", (2, 5))])
def test_a_loss_against_labels_of_any_kind_is_judged(
    answering: Answering, kind: str, figure: str, values: tuple[float, float]
) -> None:
    builds = []
    for name, value in zip(("old", "new"), values, strict=True):
        report = answering(kind, {figure: 80.0}, **{figure: (value, (value - 0.5, value + 0.5))})
        replicates = value + 0.2 * np.random.default_rng(0).normal(size=400).astype(np.float32)
        builds.append(Build(name, report, Predictions("same", resamples={Key(CPU, "output", figure): replicates})))
    found = compare(builds[1], builds[0], Thresholds(max_drop=1))
    assert found.exit_code == 1
    (difference,) = (d for d in found.comparisons[0].differences if d.limit == 1)
    assert (difference.figure, difference.loss) == (figure, 3)
    assert compare(builds[1], builds[0], Thresholds(max_drop=3)).exit_code == 0
    assert compare(builds[0], builds[1], Thresholds(max_drop=0)).exit_code == 0


BEFORE = {"ap": 82.0, "ap50": 98.0, "mask_ap": 69.0, "mask_ap50": 97.0}


def detector(answering: Answering, name: str, *, told: bool = True, **change: float | None) -> Build:
    """told: whether its report says what --max-drop is about, and resamples of all were kept."""
    values = {**BEFORE, **change}
    report = answering("detection", BEFORE, **{one: value for one, value in values.items() if value})
    spread = 0.2 * np.random.default_rng(0).normal(size=400).astype(np.float32)
    kept = {Key(CPU, "output", one): value + spread for one, value in values.items() if value}
    if not told:
        figures = [meaning.model_copy(update={"drop": None}) for meaning in report.outputs[0].figures]
        report = report.model_copy(update={"outputs": [report.outputs[0].model_copy(update={"figures": figures})]})
        kept = {key: found for key, found in kept.items() if key.figure == "ap"}
    return Build(name, report, Predictions("same", resamples=kept))


@pytest.mark.parametrize("figure", ["ap", "ap50", "mask_ap", "mask_ap50"])
def test_a_loss_of_boxes_or_masks_is_a_regression(answering: Answering, figure: str) -> None:
    new, old = detector(answering, "new", **{figure: BEFORE[figure] - 2}), detector(answering, "old")
    found = compare(new, old, max_drop=1)
    assert (found.exit_code, len(found.regressions)) == (1, 1)
    (lost,) = (d for d in found.comparisons[0].differences if d.verdict == "regression")
    assert (lost.figure, lost.loss, lost.limit) == (figure, 2.0, 1.0)
    assert lost.interval == pytest.approx((2.0, 2.0), abs=1e-4), "paired"
    assert compare(new, old, max_drop=3).exit_code == 0


def test_an_older_report_is_compared_by_all_that_it_has(answering: Answering) -> None:
    old = detector(answering, "old", told=False, mask_ap50=None)
    found = compare(detector(answering, "new", mask_ap=60.0), old, max_drop=1)
    assert {d.figure for d in found.comparisons[0].differences if d.limit == 1} == {"ap", "ap50", "mask_ap"}
    (text,) = found.regressions
    assert "mask AP -9.00 points" in text
    assert compare(old, old, max_drop=1).exit_code == 0


def test_masks_that_are_gone_cannot_be_judged(answering: Answering) -> None:
    new = detector(answering, "new", mask_ap=None, mask_ap50=None)
    found = compare(new, detector(answering, "old"), max_drop=1)
    assert found.exit_code == 2
    assert found.obstacles == [
        "--max-drop cannot be judged: ONNX Runtime CPU has mask AP and mask AP50 in old and not in new"
    ]


def test_a_figure_that_is_no_longer_finite_fails(answering: Answering) -> None:
    old = Build("old", answering("multilabel", {"map": 80.0}, map=80.0), None)
    new = Build("new", answering("multilabel", {"map": 80.0}, map=None), None)
    assert compare(new, old, Thresholds(max_drop=50)).exit_code == 1


def test_builds_are_read_from_their_folders(built: BuildResult) -> None:
    found = compare(built.out, [built.out], Thresholds(max_drop=0, min_agreement=90))
    assert (found.exit_code, found.new) == (0, str(built.out))
