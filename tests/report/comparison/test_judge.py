"""Judgements: on builds whose every image and turn is chosen here, so that the right answer is known."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from scipy.stats import binomtest

from fimaq_deploy import UserError
from fimaq_deploy import report as r
from fimaq_deploy.report.comparison.judge import Build, compare
from fimaq_deploy.report.comparison.records import Comparison, Difference, Judgement, Thresholds
from fimaq_deploy.report.comparison.words import summary

CPU = "onnxruntime-cpu"

Make = Callable[..., Build]


def judged(new: Build, old: Build, **thresholds: float) -> Judgement:
    return compare(new, [old], Thresholds(**thresholds))


def figure(judgement: Judgement, name: str, row: str = CPU) -> Difference:
    return next(d for d in judgement.comparisons[0].differences if (d.figure, d.row) == (name, row))


def only(judgement: Judgement) -> Comparison:
    (found,) = judgement.comparisons
    return found


def test_equal_builds_pass_every_threshold_of_zero(make: Make) -> None:
    found = judged(make("new"), make(), max_drop=0, max_slowdown=0, max_growth=0)
    assert found.exit_code == 0
    assert {d.verdict for d in only(found).differences} == {"same"}
    assert only(found).agreement == {"pytorch-fp32": 100.0, CPU: 100.0}
    assert (only(found).doubts, only(found).notes, only(found).changes) == ([], [], [])
    assert summary(found) == "deit_s: no regression against old."


def test_without_a_threshold_nothing_is_judged(make: Make) -> None:
    found = judged(make("new", range(500), speedup=0.5), make())
    assert found.exit_code == 0
    assert figure(found, "top1").verdict == figure(found, "latency").verdict == "worse"
    assert "shown without a threshold, so nothing is judged" in summary(found)


# Accuracy


def test_a_loss_that_chance_does_not_explain_is_a_regression(make: Make) -> None:
    found = judged(make("new", range(80)), make(), max_drop=1)
    assert found.exit_code == 1
    (told,) = found.regressions
    assert told.startswith(f"{CPU}: top-1 -3.00 points (")
    assert told.endswith(", against old; a loss of 1 point is allowed")
    assert summary(found) == "deit_s: 1 regression against old."


def test_a_loss_within_the_threshold_is_told_and_allowed(make: Make) -> None:
    found = judged(make("new", range(80)), make(), max_drop=3.5)
    assert found.exit_code == 0
    assert figure(found, "top1").verdict == "allowed"


def test_the_same_loss_over_many_parted_images_may_be_chance(make: Make) -> None:
    """3 points again, now from 280 images that one build has right and 250 that the other has."""
    found = judged(make("new", range(250, 530)), make("old", range(250)), max_drop=1)
    assert found.exit_code == 0
    assert figure(found, "top1").verdict == "doubtful"
    (doubt,) = only(found).doubts
    assert doubt.endswith("; a loss of 1 point is allowed; it may be chance")


def test_a_gain_is_never_a_regression(make: Make) -> None:
    found = judged(make("new", range(10)), make(), max_drop=0)
    assert (found.exit_code, figure(found, "top1").verdict) == (0, "better")


@pytest.mark.parametrize(("new", "old"), [(range(80), range(50)), (range(30, 95), range(50)), (range(9), range(2, 30))])
def test_the_probability_is_the_binomial_test_on_the_parted_images(make: Make, new: range, old: range) -> None:
    found = figure(judged(make("new", new), make("old", old)), "top1")
    lost, gained = len(set(new) - set(old)), len(set(old) - set(new))
    assert found.p_value == pytest.approx(binomtest(lost, lost + gained).pvalue)
    assert found.loss == pytest.approx((lost - gained) / 10)
    assert found.interval is not None
    assert found.interval[0] < found.loss < found.interval[1]


def test_without_predictions_accuracy_is_judged_less_sharply(make: Make) -> None:
    """A loss of 1.5 points from 50 to 65 errors: plain image by image, within chance for two shares."""
    paired = judged(make("new", range(65)), make(), max_drop=1)
    unpaired = judged(make("new", range(65), kept=False), make(), max_drop=1)
    assert (paired.exit_code, unpaired.exit_code) == (1, 0)
    assert figure(unpaired, "top1").p_value is None
    assert figure(unpaired, "top1").verdict == "doubtful"
    assert "new: no predictions were kept, so accuracy is judged less sharply, unpaired" in only(unpaired).notes
    assert judged(make("new", range(150), kept=False), make(), max_drop=1).exit_code == 1


@pytest.mark.parametrize(("limit", "code"), [(1.0, 1), (1.1, 0), (1.2, 0)])
def test_a_loss_of_exactly_the_threshold_is_within_it(make: Make, limit: float, code: int) -> None:
    """In floating point 92.9 - 91.8 is more than 1.1."""
    assert 92.9 - 91.8 > 1.1
    assert judged(make("new", range(82)), make("old", range(71)), max_drop=limit).exit_code == code


def test_full_precision_is_shown_and_not_held_to_a_threshold(make: Make) -> None:
    found = figure(judged(make("new"), make(), max_drop=0), "top1", "pytorch-fp32")
    assert (found.limit, found.verdict) == (None, "same")


# Latency


def test_a_slowdown_beyond_its_spread_and_its_threshold_is_a_regression(make: Make) -> None:
    found = judged(make("new", speedup=1.0), make(), max_slowdown=20)
    assert found.exit_code == 1
    assert figure(found, "latency").loss == pytest.approx(100)
    (told,) = found.regressions
    assert "time, batch 1 +100.0 % (" in told
    assert told.endswith(", relative to full precision, against old; a loss of 20 % is allowed")


@pytest.mark.parametrize(
    ("speedup", "spread", "verdict"),
    [
        (1.9, 0.02, "allowed"),
        (1.0, 0.6, "doubtful"),
        (1.99, 0.02, "same"),
        (3.0, 0.02, "better"),
    ],
)
def test_other_changes_of_speed_are_no_regression(make: Make, speedup: float, spread: float, verdict: str) -> None:
    found = judged(make("new", speedup=speedup, spread=spread), make(spread=spread), max_slowdown=20)
    assert (found.exit_code, figure(found, "latency").verdict) == (0, verdict)


def test_a_busier_machine_is_no_regression(make: Make) -> None:
    """Everything takes three times as long, full precision too: the paired ratio stays."""
    new = make("new")
    slow = new.report.rows[1].latency[0].model_copy(update={"p50_ms": 15.0})
    rows = [new.report.rows[0], new.report.rows[1].model_copy(update={"latency": [slow]})]
    found = judged(Build("new", new.report.model_copy(update={"rows": rows}), new.predictions), make(), max_slowdown=0)
    assert (found.exit_code, figure(found, "latency").new_ms) == (0, 15.0)


@pytest.mark.parametrize("change", [{"cpu": "another"}, {"cores": 99}, {"gpu": "NVIDIA H100"}])
def test_on_other_hardware_latency_is_shown_and_not_judged(make: Make, change: dict[str, Any]) -> None:
    other = make().report.environment.model_copy(update=change)
    new = make("new", speedup=1.0, environment=other)
    shown = judged(new, make(), max_drop=1)
    assert shown.exit_code == 0
    assert figure(shown, "latency").verdict == "not judged"
    assert figure(shown, "latency").loss == pytest.approx(100)
    assert only(shown).notes == ["old was measured on other hardware, so latency is shown and not judged"]
    asked = judged(new, make(), max_slowdown=20)
    assert asked.exit_code == 2
    assert asked.obstacles[0].startswith("--max-slowdown cannot be judged: other hardware, ")
    assert "not every threshold could be judged" in summary(asked)


def test_a_regression_outweighs_what_could_not_be_judged(make: Make) -> None:
    other = make().report.environment.model_copy(update={"cpu": "another"})
    found = judged(make("new", range(80), environment=other), make(), max_drop=1, max_slowdown=20)
    assert (found.exit_code, len(found.regressions), len(found.obstacles)) == (1, 1, 1)


@pytest.mark.parametrize("change", [{"batch_size": 8}, {"ratio_to": "tensorrt-fp16"}, {"speedup_interval": None}])
def test_latencies_that_do_not_match_are_not_compared(make: Make, change: dict[str, Any]) -> None:
    old = make()
    latency = old.report.rows[1].latency[0].model_copy(update=change)
    rows = [old.report.rows[0], old.report.rows[1].model_copy(update={"latency": [latency]})]
    found = judged(make("new"), Build("old", old.report.model_copy(update={"rows": rows}), None), max_slowdown=20)
    assert found.exit_code == 2
    assert "has no latency with its interval in both; build the older one again" in found.obstacles[0]


# Size, targets and rows


@pytest.mark.parametrize(
    ("size_bytes", "limit", "verdict"),
    [
        (1_060_000, 5, "regression"),
        (1_060_000, 6, "allowed"),
        (1_000_000, 0, "same"),
        (1_000_001, 0, "regression"),
        (10, 0, "better"),
    ],
)
def test_size_is_exact(make: Make, size_bytes: int, limit: float, verdict: str) -> None:
    found = judged(make("new", size_bytes=size_bytes), make(), max_growth=limit)
    assert figure(found, "size").verdict == verdict
    assert found.exit_code == (verdict == "regression")


def test_a_compiler_that_refuses_only_the_new_graph_is_a_regression(make: Make) -> None:
    refused = [r.TargetStatus(name=CPU), r.TargetStatus(name="tensorrt-rtx", not_built="no kernel", failed=True)]
    old = make(targets=[r.TargetStatus(name=CPU), r.TargetStatus(name="tensorrt-rtx", compile_seconds=3.0)])
    found = judged(make("new", targets=refused), old)
    assert found.exit_code == 1
    assert found.regressions == ["tensorrt-rtx compiles old and not new: no kernel"]
    assert judged(make("new", targets=refused), make(targets=refused)).exit_code == 0


def test_each_baseline_is_judged_on_its_own(make: Make) -> None:
    found = compare(make("new", range(80)), [make("good"), make("bad", range(80))], Thresholds(max_drop=1))
    assert [len(one.regressions) for one in found.comparisons] == [1, 0]
    assert found.exit_code == 1
    assert found.command == "fimaq-deploy compare new good bad --max-drop 1"


def test_a_judgement_reads_back_from_its_json(make: Make) -> None:
    found = judged(make("new", range(80)), make(), max_drop=1, max_slowdown=20)
    assert Judgement.model_validate_json(found.to_json()) == found


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_threshold_has_to_be_a_number(make: Make, value: float) -> None:
    with pytest.raises(UserError, match=r"--max-slowdown .*expected a number"):
        judged(make("new"), make(), max_slowdown=value)
