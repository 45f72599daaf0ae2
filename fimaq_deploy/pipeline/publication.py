"""A build's measurements as its report, and the report with everything else that a folder says of itself."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timezone
from pathlib import Path

from fimaq_deploy.calibration.findings.sensitivity import Sensitivity
from fimaq_deploy.calibration.findings.usage import GridUse
from fimaq_deploy.calibration.learning.reconstruct import BlockRecord
from fimaq_deploy.calibration.rewrites.choice import Choice
from fimaq_deploy.data.source import ImageSource
from fimaq_deploy.engines.machine import describe_environment
from fimaq_deploy.engines.runtimes import ONNX, runtime_packages
from fimaq_deploy.files import write_whole
from fimaq_deploy.manifest import write_manifest
from fimaq_deploy.models.describe import ModelInfo
from fimaq_deploy.models.fit import Sizes
from fimaq_deploy.pipeline import artifacts, findings
from fimaq_deploy.pipeline.candidates import Found
from fimaq_deploy.pipeline.compiled import Engine
from fimaq_deploy.pipeline.exports import Files
from fimaq_deploy.pipeline.measures import Measures
from fimaq_deploy.pipeline.pictures import to_pictures
from fimaq_deploy.pipeline.request import Request
from fimaq_deploy.pipeline.steps import Step
from fimaq_deploy.recipe import Recipe
from fimaq_deploy.report import schema, to_html, to_markdown
from fimaq_deploy.report.predictions import PREDICTIONS
from fimaq_deploy.runtime.onnx_metadata import contract_in


def make_report(
    request: Request,
    info: ModelInfo,
    recipe: Recipe,
    *,
    parameters: int,
    images: tuple[ImageSource, ImageSource],
    measures: Measures,
    notes: Iterable[str],
    files: Files,
    engines: Sequence[Engine],
    found: Found,
    rows: Sequence[schema.Row],
    steps: Sequence[Step],
    history: Sequence[BlockRecord],
    grids: Sequence[GridUse] = (),
    sensitivity: Sequence[Sensitivity] = (),
    parity: Sequence[schema.Parity] = (),
    told: Sequence[str] = (),
    mix: schema.Mix | None = None,
    choice: Choice | None = None,
) -> schema.Report:
    """images: those of calibration and of evaluation. notes, told: what a reader should know, before and behind what is
    said of floats.
    """
    calibration, evaluation = images
    notes = (*notes, *measures.notes, *_float_notes(files, engines), *told)
    return schema.Report(
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        command=request.command(),
        seed=request.seed,
        max_drop=request.max_drop,
        min_agreement=request.min_agreement,
        min_cosine=request.min_cosine,
        outputs=found.outputs,
        evaluate=request.evaluate_name,
        model=findings.to_model(info, request.model if request.is_onnx else request.weights, parameters),
        recipe=recipe.model_dump(mode="json"),
        data=findings.to_data(calibration, evaluation, notes, found.predictions, measures.bank),
        environment=findings.to_environment(describe_environment(runtime_packages())),
        targets=[findings.to_target(engine, _shipped_original(engine, files)) for engine in engines],
        rows=list(rows),
        blocks=[findings.to_block(record) for record in history],
        steps=[findings.to_step(step) for step in steps],
        grids=[findings.to_grid_use(use) for use in grids],
        sensitivity=[findings.to_sensitivity(one) for one in sensitivity],
        mix=mix,
        rewrites=None if choice is None else findings.to_rewrites(choice),
        audits=[findings.to_audit(engine.audit) for engine in engines if engine.audit],
        parity=list(parity),
        pictures=to_pictures(found.glance, measures.tasks, info),
        predictions=PREDICTIONS,
    )


def _shipped_original(engine: Engine, files: Files) -> str | None:
    """The original's file, where a target gains nothing from integers."""
    return files.yardstick(engine.runtime).name if engine.ships_original else None


def _float_notes(files: Files, engines: Sequence[Engine]) -> list[str]:
    """Which floats the targets with half precision have around the integers."""
    titles = [engine.runtime.title for engine in engines if engine.runtime.target.high_precision != "float32"]
    return [f"{' and '.join(titles)}: {files.half.note}"] if files.half else []


def write_report(folder: Path, report: schema.Report, recipe: Recipe, sizes: Sizes, info: ModelInfo) -> None:
    """The report, the recipe and, last, the manifest of everything."""
    texts = {
        "report.json": report.to_json(),
        "report.md": to_markdown(report),
        "report.html": to_html(report),
        "recipe.yaml": _told_in_recipe(report) + recipe.to_yaml(),
    }
    for name, text in texts.items():
        write_whole(folder / name, text.encode())
    contract = contract_in(folder / ONNX)
    assert contract is not None
    reads: dict[str, object] = {"sizes": sizes.options(), "preprocessing": info.preprocessing()}
    reads |= {"contract": contract.document(), **({"backbone": contract.part} if contract.part else {})}
    write_manifest(folder, {**_manifest_facts(report), **reads}, without=(artifacts.REQUEST_FILE,))


def _told_in_recipe(report: schema.Report) -> str:
    """What its switches rest on, as comments."""
    if report.rewrites is None:
        return ""
    start = f"loss {report.rewrites.loss:.3g} of the outputs before, on {report.rewrites.images} calibration images"
    trials = (
        f"{one.setting}{' beside ' + ', '.join(one.beside) if one.beside else ''}: loss {one.loss:.3g}, "
        f"lower by {one.gain:.2g} ± {one.noise:.2g}, {'taken' if one.taken else 'left'}"
        for one in report.rewrites.trials
    )
    return "".join(f"# {line}\n" for line in (f"rewrites: auto, {start}", *trials))


def _manifest_facts(report: schema.Report) -> dict[str, object]:
    return {
        "created": report.created,
        "model": report.model.name,
        "weights": report.model.weights,
        "recipe": report.recipe["name"],
        "targets": [target.name for target in report.targets if not target.not_built],
        "seed": report.seed,
        "command": report.command,
        "versions": {"python": report.environment.python, **report.environment.packages},
    }
