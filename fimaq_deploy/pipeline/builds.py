"""The whole road: a model, images and a recipe in, a folder with checked artifacts out.

1. resolve the recipe and the targets, and refuse an output folder that cannot be written;
2. load the model and the images;
3. quantize on the grid that all targets execute, and save it;
4. export ONNX, quantized and full-precision: each is traced once, and written in half precision too for TensorRT;
5. compile engines for each target that has a compiler here, and audit their layer plans;
6. run every variant that can run on the evaluation images, and compare it with the one that it should equal;
7. compare the quantized model with its files block by block;
8. measure the latency of quantized and full-precision ONNX in turns;
9. write the report and the manifest.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Protocol

import torch
from torch import nn

from fimaq_deploy.calibration import parallel
from fimaq_deploy.calibration.quantization import quantize
from fimaq_deploy.data.choose import calibration_source, evaluation_source
from fimaq_deploy.data.source import ImageSource
from fimaq_deploy.engines.options import OPTIMISATIONS
from fimaq_deploy.engines.runner import Runner
from fimaq_deploy.engines.runtimes import ONNX, REFERENCE, Runtime, find_runtime, runtime_packages
from fimaq_deploy.errors import within
from fimaq_deploy.export import export_fp_onnx, trace
from fimaq_deploy.files import write_whole, written_whole
from fimaq_deploy.manifest import write_manifest
from fimaq_deploy.measure.own import OwnFunction
from fimaq_deploy.measure.tasks import TaskChoice, parse_tasks
from fimaq_deploy.models.describe import ModelInfo, describe_model
from fimaq_deploy.models.load import load_model
from fimaq_deploy.pipeline import artifacts
from fimaq_deploy.pipeline.candidates import Candidate, Originals, measure_latency, measure_rows, with_latency
from fimaq_deploy.pipeline.findings import to_schema, with_limits
from fimaq_deploy.pipeline.measures import choose_measures
from fimaq_deploy.pipeline.request import Request, default_out, resolve_targets
from fimaq_deploy.pipeline.tensorrt_files import IMAGES, Twins, choose_floats, compile_twins, write_twins
from fimaq_deploy.recipe import Recipe
from fimaq_deploy.report import schema, to_html, to_markdown
from fimaq_deploy.report.environment import describe_environment
from fimaq_deploy.report.gates import failures
from fimaq_deploy.report.predictions import PREDICTIONS
from fimaq_deploy.verify.block_parity import QUANTIZED, compare_files, compare_weights

FP_ONNX = "model.fp32.onnx"
PARITY_IMAGES = 4
FP_ROW = "onnx-fp32"

_BYTES_PER_PARAMETER = 20  # float and quantized ONNX, twins, engines and safetensors together stay below it
_BYTES_ALWAYS = 16 * 2**20


class Progress(Protocol):
    """Called as the build goes on. `total` is 0 where a step is not counted."""

    def __call__(self, step: str, done: int, total: int, detail: str) -> None: ...


@dataclass(frozen=True)
class BuildResult:
    """A finished build. failures: each gate that it missed, as a sentence."""

    out: Path
    report: schema.Report
    failures: tuple[str, ...]


def build(
    model: str,
    *,
    weights: str | Path = "pretrained",
    images: str | Path | None = None,
    eval_images: str | Path | None = None,
    recipe: Recipe | str | Path = "w8a8",
    targets: str | Sequence[str] | None = None,
    out: str | Path | None = None,
    device: str | None = None,
    seed: int = 0,
    max_drop: float | None = None,
    sensitivity: int = 0,
    task: TaskChoice | Sequence[str] = None,
    evaluate: str | OwnFunction | None = None,
    min_agreement: float | None = None,
    min_cosine: float | None = None,
    overwrite: bool = False,
    resume: bool = False,
    progress: Progress | None = None,
    originals: Originals | None = None,
) -> BuildResult | None:
    """Quantize, export, compile, evaluate and report, into the folder `out` (default: build/MODEL).

    images, eval_images: folders; the shipped models bring their own. targets: default, all that work on this machine.
    task: classes, embedding, multilabel, regression or dense, or the kinds of several outputs by name; default: what
        the outputs, the labels and the model tell.
    evaluate: a figure of your own, as a function or as package.module:function: it gets a function from images to
        outputs, and returns a number, or several by name; higher is better.
    max_drop: how much of the figure against labels (points of top-1, of mAP, …), or of your own where there is one,
        what is shipped may lose; a build that loses more says so in `failures`.
    min_agreement, min_cosine: percent of answers that have to be the original's, and the least cosine with it. They
        need no labels. An output without a threshold fails where it is plainly ruined.
    sensitivity: how many calibration images to measure on what each block and layer costs.
    originals: from an earlier build of the same model on the same images, so that its original is not run again.

    Under torchrun every process helps to quantize; the first one does the rest, and the others return None.

    Raises:
        UserError: bad input; whatever `out` held before is untouched.
    """
    request = Request(
        model=model,
        weights=str(weights),
        images=None if images is None else str(images),
        eval_images=None if eval_images is None else str(eval_images),
        recipe=recipe if isinstance(recipe, Recipe) else Recipe.load(recipe),
        targets=resolve_targets(targets),
        out=default_out(model) if out is None else Path(out),
        device=device or ("cuda" if torch.cuda.is_available() else "cpu"),
        seed=seed,
        max_drop=max_drop,
        sensitivity=sensitivity,
        task=parse_tasks(task),
        evaluate=evaluate,
        min_agreement=None if min_agreement is None else within("--min-agreement", min_agreement, 0, 100),
        min_cosine=None if min_cosine is None else within("--min-cosine", min_cosine, -1, 1),
    )
    with parallel.session(request.device) as group:
        if not group.leads:
            _assist(request)
            return None
        with artifacts.staged(request.out, request.as_dict(), overwrite=overwrite, resume=resume) as folder:
            report = _Build(request, folder, progress or _silent, originals).run()
    if originals:
        originals.onnx = request.out / FP_ONNX
    return BuildResult(request.out, report, tuple(failures(report, max_drop)))


def _assist(request: Request) -> None:
    """Learn with the first process and write nothing."""
    device = parallel.own_device(request.device)
    model = load_model(request.model, request.weights, device=device, seed=request.seed)
    images = _calibration(request, describe_model(model, request.model))
    quantize(model, images, request.recipe, request.targets, seed=request.seed, device=device)


def _calibration(request: Request, info: ModelInfo) -> ImageSource:
    count = request.recipe.reconstruction.images
    return calibration_source(
        request.model, info, count, images=request.images, weights=request.weights, seed=request.seed
    )


def _evaluation(request: Request, info: ModelInfo, calibration: ImageSource) -> ImageSource:
    own = request.images is not None
    return evaluation_source(request.model, info, calibration, images=request.eval_images, own_calibration=own)


def _silent(step: str, done: int, total: int, detail: str) -> None:
    pass


@dataclass
class _Build:
    """One build under way. The steps run in the order of `run` and leave their results here for the next ones."""

    request: Request
    folder: Path
    progress: Progress
    originals: Originals | None = None
    steps: list[schema.Step] = field(default_factory=list)
    statuses: list[schema.TargetStatus] = field(default_factory=list)
    runners: dict[str, Runner] = field(default_factory=dict)
    ran: dict[str, tuple[Path, str]] = field(default_factory=dict)
    twins: Twins | None = None
    audits: list[schema.Audit] = field(default_factory=list)
    parity: list[schema.Parity] = field(default_factory=list)

    def run(self) -> schema.Report:
        with self._step("load"):
            self._load()
        with self._step("quantize"):
            self._quantize()
        with self._step("export"):
            self._export()
        with self._step("compile"):
            self._compile()
        with self._step("evaluate"):
            rows = self._accuracy()
        with self._step("parity"):
            self.parity = self._compare_stages()
        with self._step("latency"):
            rows = with_limits(with_latency(rows, self._latency()), self.ran)
        return self._write(rows)

    @contextmanager
    def _step(self, name: str) -> Iterator[None]:
        self.progress(name, 0, 0, "")
        started = time.perf_counter()
        yield
        self.steps.append(schema.Step(name=name, seconds=time.perf_counter() - started))

    def _counter(self, step: str) -> Callable[[int, int, str], None]:
        return lambda done, total, detail: self.progress(step, done, total, detail)

    def _load(self) -> None:
        request, device = self.request, parallel.own_device(self.request.device)
        self.model = load_model(request.model, request.weights, device=device, seed=request.seed)
        self.info = describe_model(self.model, request.model)
        self.calibration = _calibration(request, self.info)
        self.evaluation = _evaluation(request, self.info, self.calibration)
        self.measures = choose_measures(request, self.model, self.evaluation)
        artifacts.check_space(self.folder, _BYTES_PER_PARAMETER * _parameters(self.model) + _BYTES_ALWAYS)

    def _quantize(self) -> None:
        request = self.request
        self.quantized = quantize(
            self.model,
            self.calibration,
            request.recipe,
            request.targets,
            seed=request.seed,
            device=parallel.own_device(request.device),
            progress=self._counter("quantize"),
            resume=self.folder / artifacts.STATE,
            sensitivity=request.sensitivity,
        )
        self.quantized.save(self.folder / QUANTIZED)

    def _export(self) -> None:
        traced, original = trace(self.quantized), self.folder / FP_ONNX
        traced.write(self.folder / ONNX)
        if self.originals and self.originals.onnx and self.originals.onnx.is_file():
            with written_whole(original) as beside:
                shutil.copyfile(self.originals.onnx, beside)
        else:
            export_fp_onnx(self.model, original)
        family = [name for name in self.request.targets if find_runtime(name).compiler]
        if family:
            floats = choose_floats(self.quantized, self.model, self.calibration.take(IMAGES))
            self.twins = write_twins(self.folder, traced, original, floats, family)

    def _compile(self) -> None:
        for number, name in enumerate(self.request.targets):
            self.progress("compile", number, len(self.request.targets), name)
            self.statuses.append(self._compile_one(name))

    def _compile_one(self, name: str) -> schema.TargetStatus:
        runtime = find_runtime(name)
        not_built, not_run = runtime.availability()
        status = schema.TargetStatus(name=name, not_built=not_built, not_run=not_run)
        if self.twins is None or runtime.compiler is None or not_built:
            return status
        status, audit = compile_twins(self.twins, status)
        self.audits += [audit] if audit else []
        return status

    def _candidates(self) -> list[Candidate]:
        """The variants in the order of the table; each is compared with the one that it should equal."""
        onnx, fp_onnx = self.folder / ONNX, self.folder / FP_ONNX
        runtime = find_runtime(REFERENCE)
        reference = runtime.load(onnx, **{OPTIMISATIONS.name: False})
        self.ran = {FP_ROW: (fp_onnx, REFERENCE), REFERENCE: (onnx, REFERENCE)}
        self.runners = {row: runtime.load(file) for row, (file, _) in self.ran.items()}
        return [
            Candidate("pytorch-fp32", "PyTorch FP32", self.model, original=True),
            Candidate(FP_ROW, "ONNX Runtime FP32", self.runners[FP_ROW], "pytorch-fp32", fp_onnx, original=True),
            Candidate("fake-quant", "PyTorch fake-quant", self.quantized, "pytorch-fp32", self.folder / QUANTIZED),
            Candidate("onnx-reference", "ONNX unoptimised", reference, "fake-quant", onnx),
            Candidate(REFERENCE, runtime.title, self.runners[REFERENCE], "onnx-reference", onnx, deployed=True),
            *(one for status in self.statuses if status.name != REFERENCE for one in self._engine_candidates(status)),
        ]

    def _engine_candidates(self, status: schema.TargetStatus) -> Iterator[Candidate]:
        """The engine of one target, behind the full-precision one where there is one."""
        name, reason = status.name, status.not_built or status.not_run
        runtime = find_runtime(name)
        if self.twins is not None and runtime.compiler:
            twin, file = f"{name}-{self.twins.short}", self.twins.original_engine(name)
            run = self._loaded(twin, file, runtime, reason)
            title = f"{runtime.title} {self.twins.short.upper()}"
            found = None if status.not_built else file
            yield Candidate(twin, title, run, "pytorch-fp32", found, not_run=reason, original=True)
        file = runtime.file(self.folder)
        run = self._loaded(name, file, runtime, reason)
        found = None if status.not_built else file
        yield Candidate(name, runtime.title, run, "onnx-reference", found, deployed=True, not_run=reason)

    def _loaded(self, row: str, file: Path, runtime: Runtime, not_run: str | None) -> Runner | None:
        if not_run is None:
            self.ran[row] = (file, runtime.name)
            self.runners[row] = runtime.load(file)
        return self.runners.get(row)

    def _accuracy(self) -> list[schema.Row]:
        """The rows without their latency. What each predicted is left in a file."""
        progress = self._counter("evaluate")
        self.found = measure_rows(self._candidates(), self.evaluation, self.measures, progress, self.originals)
        self.found.predictions.save(self.folder / PREDICTIONS)
        return self.found.rows

    def _compare_stages(self) -> list[schema.Parity]:
        """Block by block on a few images; not where another engine would have to be compiled for it."""
        weights = compare_weights(self.folder)
        ran = [find_runtime(target) for row, (_, target) in self.ran.items() if row != FP_ROW]
        targets = [runtime.name for runtime in ran if runtime.taps and runtime.compiler is None]
        images = self.evaluation.take(PARITY_IMAGES).to(self.request.device)
        return [to_schema(each, weights) for each in compare_files(self.quantized, self.folder, images, targets)]

    def _latency(self) -> dict[str, list[schema.Latency]]:
        return measure_latency(self.runners)

    def _write(self, rows: Sequence[schema.Row]) -> schema.Report:
        """The report, the recipe and, last, the manifest of everything."""
        report = self._report(rows)
        texts = {
            "report.json": report.to_json(),
            "report.md": to_markdown(report),
            "report.html": to_html(report),
            "recipe.yaml": self.quantized.recipe.to_yaml(),
        }
        for name, text in texts.items():
            write_whole(self.folder / name, text.encode())
        write_manifest(self.folder, _manifest_facts(report), without=(artifacts.REQUEST_FILE,))
        return report

    def _report(self, rows: Sequence[schema.Row]) -> schema.Report:
        request = self.request
        return schema.Report(
            created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
            command=request.command(),
            seed=request.seed,
            max_drop=request.max_drop,
            min_agreement=request.min_agreement,
            min_cosine=request.min_cosine,
            outputs=self.found.outputs,
            evaluate=request.evaluate_name,
            model=schema.Model(
                name=request.model,
                weights=request.weights,
                input_shape=self.info.input_shape,
                classes=self.info.classes,
                parameters=_parameters(self.model),
            ),
            recipe=self.quantized.recipe.model_dump(mode="json"),
            data=self._data(rows),
            environment=describe_environment(runtime_packages()),
            targets=self.statuses,
            rows=list(rows),
            blocks=[schema.Block(**asdict(record)) for record in self.quantized.history],
            steps=self.steps,
            parity=self.parity,
            grids=[schema.GridUse(**asdict(use)) for use in self.quantized.grids],
            sensitivity=[schema.Sensitivity(**asdict(one)) for one in self.quantized.sensitivity],
            audits=self.audits,
            predictions=PREDICTIONS,
        )

    def _data(self, rows: Sequence[schema.Row]) -> schema.Data:
        calibration, evaluation = self.calibration, self.evaluation
        return schema.Data(
            calibration=calibration.description,
            calibration_images=calibration.count or 0,
            evaluation=evaluation.description,
            evaluation_images=evaluation.count or 0,
            labelled=evaluation.labelled,
            notes=list(
                dict.fromkeys((*calibration.notes, *evaluation.notes, *self.found.notes, *self._precision_notes()))
            ),
        )

    def _precision_notes(self) -> tuple[str, ...]:
        """What is not in integers, and which floats TensorRT has around them."""
        floats = () if self.twins is None else (f"TensorRT: {self.twins.note}",)
        return (*self.quantized.notes, *floats)


def _parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


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
