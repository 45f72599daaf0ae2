from __future__ import annotations

import json
from pathlib import Path

import pytest
from fixtures.road import HALF, Road

from fimaq_deploy.contract import KEY
from fimaq_deploy.data.intake import as_source
from fimaq_deploy.graph.inspection import load_model
from fimaq_deploy.graph.saving import write_model
from fimaq_deploy.measure.tasks import find_tasks, traits_of
from fimaq_deploy.models.describe import describe_model
from fimaq_deploy.models.fit import Sizes
from fimaq_deploy.pipeline.candidates import measure_rows
from fimaq_deploy.pipeline.compiled import compile_engines
from fimaq_deploy.pipeline.measures import Measures
from fimaq_deploy.pipeline.publication import make_report, write_report
from fimaq_deploy.pipeline.request import Request
from fimaq_deploy.pipeline.steps import Step
from fimaq_deploy.pipeline.variants import load_variants, of_module
from fimaq_deploy.report import schema


@pytest.fixture(scope="module")
def report(road: Road, random_images) -> schema.Report:
    images = as_source(random_images(4))
    engines = compile_engines([HALF], road.files, lambda *_: None)
    variants = load_variants(of_module(road.model, road.quantized, road.files), road.files, engines)
    tasks = find_tasks({"output": road.model(random_images(2)).detach().numpy()}, traits_of(road.model))
    measures = Measures(tasks)
    found = measure_rows(variants.candidates, images, measures, lambda *_: None)
    return make_report(
        Request.of("vit_digits", targets="onnxruntime-cpu", seed=7),
        describe_model(road.model, "tiny"),
        road.quantized.recipe,
        parameters=5,
        images=(images, images),
        measures=measures,
        notes=["first"],
        files=road.files,
        engines=engines,
        found=found,
        rows=found.rows,
        steps=[Step("load", 1.0)],
        history=road.quantized.history,
        told=["last"],
    )


def test_a_report_holds_what_it_was_given(report: schema.Report) -> None:
    assert (report.seed, report.model.parameters, report.steps[0].name) == (7, 5, "load")
    assert [row.id for row in report.rows][:2] == ["pytorch-fp32", "onnx-fp32"]
    assert report.data.notes[0] == "first" and report.data.notes[-1] == "last"
    assert any(note.startswith("half: ") for note in report.data.notes)


def test_what_a_folder_says_of_itself_is_written_with_the_manifest_last(
    report: schema.Report, road: Road, tmp_path: Path
) -> None:
    info = describe_model(road.model, "tiny")
    (tmp_path / "model.onnx").write_bytes(road.files.onnx.read_bytes())
    model = load_model(tmp_path / "model.onnx")
    model.metadata_props[KEY] = info.contract().named("images", []).text()
    write_model(model, tmp_path / "model.onnx")
    write_report(tmp_path, report, road.quantized.recipe, Sizes(), info)
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert {"report.json", "report.md", "report.html", "recipe.yaml", "model.onnx"} <= set(manifest["files"])
    assert manifest["seed"] == 7 and set(manifest["versions"]) == {"python", *report.environment.packages}
