"""Every kind of output, ruined on purpose and well quantized: benchmarks/verdicts.py in miniature, without files."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fimaq_deploy import Recipe, quantize
from fimaq_deploy import report as r
from fimaq_deploy.data.intake import as_source
from fimaq_deploy.measure.outputs import running
from fimaq_deploy.measure.tasks import find_tasks, parse_tasks, traits_of
from fimaq_deploy.pipeline.candidates import Candidate, measure_rows
from fimaq_deploy.pipeline.measures import Measures
from fimaq_deploy.report.build_page.verdict import status, verdict
from fimaq_deploy.report.gates import failures

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def benchmark() -> Iterator[ModuleType]:
    sys.path.insert(0, str(BENCHMARKS))
    yield import_module("verdicts")
    sys.path.remove(str(BENCHMARKS))


def images(count: int, seed: int) -> Tensor:
    """Smooth noise."""
    coarse = torch.randn(count, 3, 8, 8, generator=torch.Generator().manual_seed(seed))
    return nn.functional.interpolate(coarse, size=(64, 64), mode="bicubic")


def reported(full_report: r.Report, model: nn.Module, recipe: tuple[str, list[str]], **asked: Any) -> r.Report:
    """A report of the model and of its quantized copy, as what is shipped."""
    task = parse_tasks(asked.pop("task", None))
    quantized = quantize(model, images(16, seed=1), Recipe.load(recipe[0]).with_settings(recipe[1]))
    source = as_source(images(48, seed=2))
    with running(model) as run:
        tasks = find_tasks(run(source.take(8)), traits_of(model), task)
    candidates = [
        Candidate("pytorch-fp32", "PyTorch FP32", model, original=True),
        Candidate("fake-quant", "PyTorch fake-quant", quantized, "pytorch-fp32", deployed=True),
    ]
    found = measure_rows(candidates, source, Measures(tasks), lambda done, total, detail: None)
    bare = {"audits": [], "targets": [], "parity": [], "max_drop": None}
    return full_report.model_copy(update={**bare, "rows": found.rows, "outputs": found.outputs, **asked})


KINDS: list[tuple[str, dict[str, Any]]] = [
    ("embedding", {"min_cosine": 0.99}),
    ("several_labels", {"min_agreement": 97.0, "task": "multilabel"}),
    ("several_labels", {"min_agreement": 90.0, "task": "classes"}),
    ("one_number", {"min_cosine": 0.99}),
    ("tokens", {"min_cosine": 0.99}),
    ("feature_map", {"min_cosine": 0.99}),
]


@pytest.mark.parametrize(("name", "asked"), KINDS, ids=[f"{name}-{i}" for i, (name, _) in enumerate(KINDS)])
def test_the_ruined_one_fails_and_the_good_one_passes(
    full_report: r.Report, benchmark: ModuleType, name: str, asked: dict[str, Any]
) -> None:
    make: Callable[[], nn.Module] = getattr(benchmark, name)
    ruined = reported(full_report, make(), benchmark.RUINED, **asked)
    assert failures(ruined, None) != []
    assert status(ruined)[1] == "bad"
    assert "100.00 %" not in verdict(ruined) and "PyTorch FP32" in verdict(ruined)
    good = reported(full_report, make(), benchmark.GOOD, **asked)
    assert (failures(good, None), status(good)[1]) == ([], "good")
