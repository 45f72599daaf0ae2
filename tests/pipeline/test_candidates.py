"""Ways to run a model, measured side by side: each batch once, what of an original is remembered, what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fimaq_deploy.data.intake import as_source
from fimaq_deploy.errors import UserError
from fimaq_deploy.measure.tasks.classes import CLASSES
from fimaq_deploy.pipeline import candidates
from fimaq_deploy.pipeline.candidates import Found, Originals, measure_rows
from fimaq_deploy.pipeline.measures import Measures
from fimaq_deploy.pipeline.rows import Candidate
from fimaq_deploy.report.predictions import Fingerprint, LabelFingerprint

IMAGES = np.random.default_rng(0).normal(size=(70, 6, 2, 2)).astype(np.float32)
LABELS = IMAGES.mean((2, 3)).argmax(1)


class Way:
    """The mean of each channel, `off` places further; remembers how many images it was given at a time."""

    def __init__(self, off: int = 0) -> None:
        self.off = off
        self.seen: list[int] = []

    def __call__(self, images: Any) -> Any:
        self.seen.append(len(images))
        return np.roll(images.mean((2, 3)), self.off, 1)


def ways(*, original: Any = None, engine: Any = None) -> list[Candidate]:
    return [
        Candidate("pytorch", "PyTorch", original or Way(), original=True),
        Candidate("gpu", "GPU", None, not_run="no GPU"),
        Candidate("onnx", "ONNX", Way(1), compared_to="pytorch"),
        Candidate("engine", "Engine", engine or Way(1), compared_to="onnx", deployed=True),
    ]


def silent(done: int, total: int, detail: str) -> None: ...


def measured(
    found: list[Candidate], own: Any = None, originals: Originals | None = None, labels: Any = LABELS
) -> Found:
    images = as_source(IMAGES, labels=labels)
    return measure_rows(found, images, Measures({"logits": CLASSES}, own), silent, originals)


def test_there_is_a_row_for_each_in_their_order() -> None:
    pytorch, gpu, onnx, engine = measured(ways()).rows
    assert [pytorch.id, gpu.id, onnx.id, engine.id] == ["pytorch", "gpu", "onnx", "engine"]
    assert (gpu.not_run, gpu.accuracy) == ("no GPU", None)
    assert pytorch.accuracy is not None
    assert pytorch.accuracy.top1 == 100
    assert engine.original is not None
    assert (engine.original.to, engine.original.agreement) == ("pytorch", 0)
    assert engine.comparison is not None
    assert (engine.comparison.to, engine.comparison.agreement) == ("onnx", 100)
    assert [one.name for one in engine.comparison.figures] == ["agreement"], "headlines alone"


def test_every_way_sees_every_image_once_in_batches_and_progress_is_told() -> None:
    original, engine, told = Way(), Way(), []
    measure_rows(
        ways(original=original, engine=engine),
        as_source(IMAGES),
        Measures({"logits": CLASSES}),
        lambda done, total, detail: told.append((done, total, detail)),
    )
    assert original.seen == engine.seen == [32, 32, 6]
    assert told == [(0, 70, "3 ways to run it"), (32, 70, "3 ways to run it"), (64, 70, "3 ways to run it")]


def test_predictions_are_of_these_images() -> None:
    found, digest, truth = measured(ways()).predictions, Fingerprint(), LabelFingerprint()
    digest.add(IMAGES)
    truth.add(LABELS)
    assert (found.images, found.truth) == (str(digest), str(truth))
    assert measured(ways(), labels=(LABELS + 1) % 6).predictions.truth != found.truth
    assert set(found.rows) == {"pytorch", "onnx", "engine"}
    assert found.rows["engine"].tolist() == ((LABELS + 1) % 6).tolist()


def test_outputs_of_other_names_are_taken_by_place_and_other_numbers_of_them_refused() -> None:
    (output,) = measured(ways()).outputs
    assert (output.name, output.shape) == ("logits", [6])
    with pytest.raises(UserError, match=r"^Engine returns a, b: expected as many outputs as logits$"):
        measured(ways(engine=lambda images: {"a": images, "b": images}))


def test_a_label_that_is_no_class_is_refused() -> None:
    with pytest.raises(UserError, match="label 6: expected one of the 6 classes"):
        measured(ways(), labels=LABELS + 1)


def test_the_next_build_does_not_run_the_original_again() -> None:
    known, first, second, engine = Originals(), Way(), Way(), Way(1)
    before = measured(ways(original=first), originals=known)
    after = measured(ways(original=second, engine=engine), originals=known)
    assert (first.seen, second.seen, engine.seen) == ([32, 32, 6], [], [32, 32, 6])
    assert set(known.outputs) == {"pytorch"}
    assert after.rows == before.rows


def test_outputs_that_are_many_are_not_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(candidates, "_REMEMBERED_BYTES", 64 * 6 * 4)
    known = Originals()
    measured(ways(), originals=known)
    assert known.outputs == {}
    monkeypatch.setattr(candidates, "_REMEMBERED_BYTES", 70 * 6 * 4)
    measured(ways(), originals=known)
    assert [len(batch["output"]) for batch in known.outputs["pytorch"]] == [32, 32, 6]


def test_the_users_function_sees_every_way_that_runs_and_the_original_once() -> None:
    calls: list[int] = []

    def first(predict: Any) -> dict[str, float]:
        calls.append(1)
        return {"first": float(predict(IMAGES[:1])[0, 0])}

    known = Originals()
    rows = measured(ways(), first, known).rows
    scores = IMAGES[0].mean((1, 2))
    assert [[one.value for one in row.own] for row in rows] == [
        pytest.approx(each) for each in ([scores[0]], [], [scores[5]], [scores[5]])
    ]
    assert measured(ways(), first, known).rows == rows
    assert len(calls) == 3 + 2


def test_a_function_returns_the_same_figures_for_all() -> None:
    names = iter("aab")

    def own(predict: Any) -> dict[str, float]:
        return {next(names): 1.0}

    with pytest.raises(UserError, match=r"^own returned other figures for Engine than for the original$"):
        measured(ways(), own)
