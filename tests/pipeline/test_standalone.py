"""The whole model without torch: encoder and head in ONNX Runtime answer what the model in PyTorch does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fixtures.detectors import segmenter

from fimaq_deploy.engines.runner import Runner
from fimaq_deploy.engines.runtimes import REFERENCE, find_runtime
from fimaq_deploy.measure.outputs import named_outputs
from fimaq_deploy.pipeline.heads import Written, write_head
from fimaq_deploy.pipeline.standalone import FP_WHOLE, WHOLE, Standalone, _filled, standalone
from fimaq_deploy.pipeline.variants import FP_ROW, LoadedFile
from fimaq_deploy.pipeline.whole import Whole


def encoder_of(whole: Whole) -> Runner:
    """The encoder in PyTorch, as an engine."""

    @torch.no_grad()
    def outputs(images: Any) -> dict[str, Any]:
        return {str(n): one.numpy() for n, one in enumerate(whole.encoder(torch.from_numpy(images)))}

    return Runner("the encoder", (None, 3, 32, 32), lambda images: outputs(images)["0"], outputs)


def test_encoder_and_head_are_rows_of_their_own(tmp_path: Path) -> None:
    whole, images = Whole.of(segmenter()), torch.rand(3, 3, 32, 32)
    written = write_head(tmp_path, whole, (32, 32), images, "segmentation", ())
    (tmp_path / "model.onnx").write_bytes(bytes(1000))
    runtime = find_runtime(REFERENCE)
    loaded = [LoadedFile(row, tmp_path / "model.onnx", runtime, encoder_of(whole)) for row in (FP_ROW, REFERENCE)]
    alone = standalone(tmp_path, whole, written, loaded, images[:1])
    first, second = alone.candidates
    assert (first.id, first.compared_to, first.original, first.deployed) == (FP_WHOLE, FP_ROW, True, False)
    assert (second.id, second.compared_to, second.original, second.deployed) == (WHOLE, REFERENCE, False, True)
    assert [one.name for one in second.files] == ["model.onnx", "head.onnx"]
    with torch.no_grad():
        expected = whole.model(images).numpy()
    found = named_outputs(alone.runners[WHOLE].outputs(images.numpy()), 3)
    assert np.allclose(found["output"], expected, atol=1e-5)
    speed = alone.speed()
    assert [latency.batch_size for latency in speed[WHOLE].latencies] == [1]
    assert (speed[FP_WHOLE].ratio_to, speed[WHOLE].ratio_to) == (None, FP_WHOLE)


def test_without_a_head_there_is_nothing_to_run(tmp_path: Path) -> None:
    assert standalone(tmp_path, Whole.of(segmenter()), Written(), [], torch.rand(1, 3, 32, 32)) == Standalone()
    assert Standalone().speed() == {}


@pytest.mark.parametrize("count", [0, 2, 3])
def test_objects_fill_the_places_that_the_model_has(count: int) -> None:
    answer = {
        "boxes": np.arange(4.0 * count, dtype=np.float32).reshape(count, 4),
        "scores": np.linspace(0.1, 0.9, count, dtype=np.float32),
        "labels": np.arange(1, count + 1),
        "masks": np.full((count, 2, 2), 0.7, np.float32),
    }
    found = _filled(answer, 2)
    assert [found[name].shape for name in ("boxes", "labels", "masks")] == [(2, 4), (2,), (2, 2, 2)]
    assert found["labels"].tolist() == [*range(count, 0, -1), -1, -1][:2], "the surest first"
    assert found["masks"].dtype == bool
