"""Judgements: on builds whose every image and turn is chosen here, so that the right answer is known."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import binomtest

from fimaq_deploy import UserError
from fimaq_deploy import report as r
from fimaq_deploy.measure.accuracy import wilson_interval
from fimaq_deploy.report.comparison.judge import Build, compare, load_build
from fimaq_deploy.report.comparison.records import Comparison, Difference, Judgement, Thresholds
from fimaq_deploy.report.comparison.words import summary
from fimaq_deploy.report.predictions import PREDICTIONS, Predictions

IMAGES = 1000
LABELS = np.arange(IMAGES, dtype=np.int32) % 10
CPU = "onnxruntime-cpu"

Make = Callable[..., Build]


def predicted(wrong: Iterable[int]) -> NDArray[np.int32]:
    """Every image right but these."""
    found = LABELS.copy()
    found[list(wrong)] = (found[list(wrong)] + 1) % 10
    return found


@pytest.fixture
def make(full_report: r.Report) -> Make:
    """A build of the original and one row to ship, and what differs from the usual one."""

    def made(
        name: str = "old",
        wrong: Iterable[int] = range(50),
        speedup: float = 2.0,
        spread: float = 0.02,
        size_bytes: int = 1_000_000,
        kept: bool = True,
        **changes: Any,
    ) -> Build:
        rows = {"pytorch-fp32": predicted(range(40)), CPU: predicted(wrong)}
        fp_row, row = (full_row(row_id, found) for row_id, found in rows.items())
        latency = r.Latency(
            batch_size=1,
            p50_ms=10 / speedup,
            p90_ms=11,
            p99_ms=12,
            images_per_second=100,
            ratio_to="onnx-fp32",
            speedup=speedup,
            speedup_interval=(speedup * (1 - spread), speedup * (1 + spread)),
        )
        row = row.model_copy(update={"deployed": True, "latency": [latency], "size_bytes": size_bytes})
        report = full_report.model_copy(update={"rows": [fp_row, row], "targets": [r.TargetStatus(name=CPU)]})
        report = report.model_copy(update={name: value for name, value in changes.items() if name != "images"})
        found = Predictions(changes.get("images", "a fingerprint"), rows, LABELS)
        return Build(name, report, found if kept else None)

    return made


def full_row(row_id: str, found: NDArray[np.int32]) -> r.Row:
    hits = int((found == LABELS).sum())
    accuracy = r.Accuracy(images=IMAGES, top1=hits / 10, top5=None, interval=wilson_interval(hits, IMAGES))
    return r.Row(id=row_id, title=row_id, accuracy=accuracy)


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
    assert only(unpaired).notes == ["new: no predictions were kept, so accuracy is judged less sharply, unpaired"]
    assert judged(make("new", range(150), kept=False), make(), max_drop=1).exit_code == 1


@pytest.mark.parametrize(("limit", "code"), [(1.0, 1), (1.1, 0), (1.2, 0)])
def test_a_loss_of_exactly_the_threshold_is_within_it(make: Make, limit: float, code: int) -> None:
    """In floating point 92.9 - 91.8 is more than 1.1."""
    assert 92.9 - 91.8 > 1.1
    assert judged(make("new", range(82)), make("old", range(71)), max_drop=limit).exit_code == code


def test_full_precision_is_shown_and_not_held_to_a_threshold(make: Make) -> None:
    found = figure(judged(make("new"), make(), max_drop=0), "top1", "pytorch-fp32")
    assert (found.limit, found.verdict) == (None, "same")


def test_no_labels_mean_that_accuracy_cannot_be_judged(make: Make) -> None:
    new, old = make("new"), make()
    bare = [row.model_copy(update={"accuracy": None}) for row in new.report.rows]
    found = judged(Build("new", new.report.model_copy(update={"rows": bare}), new.predictions), old, max_drop=1)
    assert found.exit_code == 2
    assert found.obstacles == [
        f"--max-drop cannot be judged: {CPU} has no accuracy in both; evaluate on images with classes"
    ]


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


def test_a_row_that_is_missing_now_cannot_be_judged(make: Make) -> None:
    new = make("new")
    report = new.report.model_copy(update={"rows": new.report.rows[:1]})
    found = judged(Build("new", report, new.predictions), make(), max_drop=1, max_growth=1)
    assert found.exit_code == 2
    assert found.obstacles == [
        f"--max-drop cannot be judged: {CPU} was run in old and not in new (it was not asked for)",
        f"--max-growth cannot be judged: {CPU} was run in old and not in new (it was not asked for)",
    ]


def test_a_baseline_that_shipped_nothing_judges_nothing(make: Make) -> None:
    old = make()
    report = old.report.model_copy(update={"rows": old.report.rows[:1]})
    found = judged(make("new"), Build("old", report, old.predictions), max_drop=1)
    assert found.obstacles == ["--max-drop cannot be judged: nothing to ship was run in old"]


def test_what_else_changed_is_listed(make: Make) -> None:
    recipe = {"name": "w4a8", "weights": {"bits": 2}, "activations": {"bits": 8}}
    packages = {**make().report.environment.packages, "torch": "9.9"}
    environment = make().report.environment.model_copy(update={"packages": packages})
    found = only(judged(make("new", recipe=recipe, seed=4, environment=environment), make()))
    assert {change.name: change.new for change in found.changes} == {
        "recipe: weights.bits": "2",
        "seed": "4",
        "torch": "9.9",
    }


def test_each_baseline_is_judged_on_its_own(make: Make) -> None:
    found = compare(make("new", range(80)), [make("good"), make("bad", range(80))], Thresholds(max_drop=1))
    assert [len(one.regressions) for one in found.comparisons] == [1, 0]
    assert found.exit_code == 1
    assert found.command == "fimaq-deploy compare new good bad --max-drop 1"


def test_a_judgement_reads_back_from_its_json(make: Make) -> None:
    found = judged(make("new", range(80)), make(), max_drop=1, max_slowdown=20)
    assert Judgement.model_validate_json(found.to_json()) == found


# What cannot be compared


def expect_refusal(new: Build, old: Build, *words: str, **thresholds: float) -> None:
    with pytest.raises(UserError) as error:
        judged(new, old, **thresholds)
    assert "\n" not in str(error.value)
    assert all(word in str(error.value) for word in words), str(error.value)


@pytest.mark.parametrize(
    "change", [{"name": "vit_s"}, {"classes": 10}, {"input_shape": (3, 384, 384)}, {"parameters": 1}]
)
def test_builds_of_different_models_are_refused(make: Make, change: dict[str, Any]) -> None:
    other = make().report.model.model_copy(update=change)
    expect_refusal(make("new", model=other), make(), "old is a build of deit_s", "name builds of one model")


def test_other_weights_of_one_model_are_compared_and_told(make: Make) -> None:
    other = make().report.model.model_copy(update={"weights": "mine.safetensors"})
    found = only(judged(make("new", model=other), make()))
    assert [(change.name, change.new) for change in found.changes] == [("weights", "mine.safetensors")]


def test_builds_on_different_images_are_refused(make: Make) -> None:
    expect_refusal(
        make("new", images="another"), make(), "old was evaluated on other images", "build one of them again"
    )
    fewer = make().report.data.model_copy(update={"evaluation_images": 7})
    expect_refusal(make("new", kept=False, data=fewer), make(), "evaluated on other images (50000 from folder")


def test_other_labels_are_other_images(make: Make) -> None:
    old = make()
    assert old.predictions
    relabelled = Predictions(old.predictions.images, old.predictions.rows, (LABELS + 1) % 10)
    expect_refusal(make("new"), Build("old", old.report, relabelled), "other images")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_threshold_has_to_be_a_number(make: Make, value: float) -> None:
    expect_refusal(make("new"), make(), "--max-slowdown", "expected a number", max_slowdown=value)


def test_a_build_is_read_with_its_predictions_from_folder_or_file(built: Any) -> None:
    folder, file = load_build(built.out), load_build(built.out / "report.json")
    assert folder.report == file.report == built.report
    assert folder.predictions is not None
    assert set(folder.predictions.rows) == {row.id for row in built.report.rows if row.not_run is None}
    assert file.predictions is not None
    assert folder.predictions.images == file.predictions.images


@pytest.mark.parametrize("content", [b"", b"nonsense", None])
def test_unreadable_predictions_are_one_clear_line(built: Any, tmp_path: Any, content: bytes | None) -> None:
    (tmp_path / "report.json").write_text(built.report.to_json(), encoding="utf-8")
    whole = (built.out / PREDICTIONS).read_bytes()
    (tmp_path / PREDICTIONS).write_bytes(whole[:-100] if content is None else content)
    with pytest.raises(UserError, match=r"cannot read .*predictions\.safetensors.*build again") as error:
        load_build(tmp_path)
    assert "\n" not in str(error.value)
