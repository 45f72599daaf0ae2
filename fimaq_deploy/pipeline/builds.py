"""The whole road: a model, images and a recipe in, a folder with checked artifacts out.

1. check what was asked, and refuse an output folder that cannot be written;
2. load the model and the images;
3. quantize on the grid that all targets execute, and save it;
4. export ONNX, quantized and full-precision: each is traced once, and written in half precision too where a target
   computes in it;
5. compile engines for each target that has a compiler here, and audit their layer plans;
6. run every variant that can run on the evaluation images, and compare it with the one that it should equal;
7. compare the quantized model with its files block by block;
8. measure the latency of quantized and full-precision files in turns;
9. write the report and the manifest.

Each step hands its result to the next: Loaded, QuantizedModel, Files, Engines, Variants, rows, Report.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from fimaq_deploy.calibration import parallel
from fimaq_deploy.calibration.findings.domain import domain_warning, with_evaluation
from fimaq_deploy.calibration.findings.usage import GridUse, clipped_shares
from fimaq_deploy.calibration.quantization import quantize
from fimaq_deploy.calibration.quantized_model import QuantizedModel
from fimaq_deploy.calibration.rest import Whole as Divergence
from fimaq_deploy.contract import Contract
from fimaq_deploy.data.batches import images_at_once
from fimaq_deploy.data.intake import Images
from fimaq_deploy.data.memory import Arrays
from fimaq_deploy.data.pixels import Pixels
from fimaq_deploy.data.source import ImageSource
from fimaq_deploy.engines.runtimes import ONNX, find_runtime
from fimaq_deploy.errors import UserError
from fimaq_deploy.measure.own import OwnFunction
from fimaq_deploy.measure.tasks import TaskChoice
from fimaq_deploy.models.preprocessing import Preprocessing
from fimaq_deploy.pipeline import artifacts, findings
from fimaq_deploy.pipeline.arguments import AUTO, REPLAYED
from fimaq_deploy.pipeline.budgets import Search
from fimaq_deploy.pipeline.built_mix import with_built
from fimaq_deploy.pipeline.candidates import Originals, measure_rows
from fimaq_deploy.pipeline.compiled import compile_engines
from fimaq_deploy.pipeline.contracts import contract_for, file_info, whole_contract
from fimaq_deploy.pipeline.exports import FP_ONNX, Files, write_files
from fimaq_deploy.pipeline.foresight import announce
from fimaq_deploy.pipeline.heads import IMAGES as HEAD_IMAGES
from fimaq_deploy.pipeline.heads import Written, with_head, write_head
from fimaq_deploy.pipeline.loaded import Loaded, assist, load
from fimaq_deploy.pipeline.onnx_builds import make_from_onnx
from fimaq_deploy.pipeline.pixels import write_images, write_pixels
from fimaq_deploy.pipeline.publication import make_report, write_report
from fimaq_deploy.pipeline.replays import make_replay
from fimaq_deploy.pipeline.request import Request
from fimaq_deploy.pipeline.speed import measure_speed
from fimaq_deploy.pipeline.standalone import standalone
from fimaq_deploy.pipeline.steps import Counter, Progress, Steps
from fimaq_deploy.pipeline.variants import Variants, load_variants, of_module
from fimaq_deploy.recipe import Recipe
from fimaq_deploy.report import schema
from fimaq_deploy.report.gates import failures
from fimaq_deploy.report.predictions import PREDICTIONS
from fimaq_deploy.runtime.head import HEAD
from fimaq_deploy.runtime.onnx_metadata import contract_in
from fimaq_deploy.runtime.replay import REPLAY
from fimaq_deploy.target import WeightStorage
from fimaq_deploy.verify.block_parity import QUANTIZED, compare_files, compare_weights

PARITY_IMAGES = 4

_BYTES_PER_PARAMETER = 20  # float and quantized ONNX, half-precision files, engines and safetensors stay below it
_BYTES_ALWAYS = 16 * 2**20


@dataclass(frozen=True)
class BuildResult:
    """A finished build. failures: each gate that it missed, as a sentence."""

    out: Path
    report: schema.Report
    failures: tuple[str, ...]

    def document(self) -> dict[str, Any]:
        """For programs: what `report.json` holds, where it lies, and the gates that were missed."""
        told = {"schema": "fimaq-deploy/build/1", "out": str(self.out), "failures": list(self.failures)}
        return {**told, "report": json.loads(self.report.to_json())}


def build(
    model: str,
    *,
    weights: str | Path = "pretrained",
    backbone: str | None = None,
    divergence: str | Divergence | None = None,
    images: Images | None = None,
    eval_images: Images | None = None,
    recipe: Recipe | str | Path = "w8a8",
    settings: Sequence[str] = (),
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
    class_map: str | Path | None = None,
    eval_coco: str | Path | None = None,
    eval_maps: str | Path | None = None,
    bank: Images | None = None,
    bank_maps: str | Path | None = None,
    image_size: str | int | Sequence[int] | None = None,
    in_chans: int | None = None,
    preprocessing: Preprocessing | None = None,
    opset: int | None = None,
    weight_storage: WeightStorage = "auto",
    sm: int | None = None,
    replay: int = REPLAYED,
    embed_preprocessing: bool = False,
    size_budget: float | None = None,
    speed_budget: float | None = None,
    gpu: str | None = None,
    overwrite: bool = False,
    resume: bool = False,
    progress: Progress | None = None,
    originals: Originals | None = None,
) -> BuildResult | None:
    """Quantize, export, compile, evaluate and report, into the folder `out` (default: build/MODEL).

    backbone: which module of somebody's detector or segmenter is, or holds, the encoder to quantize; default: the model
        itself, or the one encoder inside. Rows of the report run the whole model, files are the encoder.
    divergence: what an error of the encoder costs the whole model, as of `fimaq_deploy.quantize`; "detections" compares
        classes and boxes.
    images, eval_images: a folder, an image, a file of arrays, or what a program holds: arrays, pairs with labels,
        mappings, data sets, iterables of batches (`data.intake`); the shipped models bring their own.
    targets: default, all that work on this machine.
    settings: changes to the recipe, such as "reconstruction.iterations=200".
    task: classes, embedding, multilabel, regression, dense, segmentation, depth or detection, or the kinds of several
        outputs by name; default: what the outputs, the labels and the model tell.
    evaluate: a figure of your own, as a function or as package.module:function: it gets a function from images to
        outputs, and returns a number, or several by name; higher is better.
    max_drop: how much of the figure against labels (points of top-1, of mAP, …), or of your own where there is one,
        what is shipped may lose; a build that loses more says so in `failures`.
    min_agreement, min_cosine: percent of answers that have to be the original's, and the least cosine with it. They
        need no labels. An output without a threshold fails where it is plainly ruined.
    class_map: the classes of the folders in eval_images: a text file with a name a line, or JSON.
    eval_coco, eval_maps: what the images in the folder eval_images show: a file of COCO annotations, or a folder with a
        map of classes for each image.
    bank, bank_maps: labelled images, as a folder with a sub-folder per class, or a folder and another one of its maps
        of classes: neighbours of embeddings vote from them, and a probe is fitted to what the original makes of them.
    image_size, in_chans: to make a model with, where its name or folder allows: 384 or (256, 192), and its channels.
    preprocessing: how images are prepared, where the model's own configuration does not say or is wrong.
    opset: of the ONNX files, for runtimes that do not know 21: 17, 19 or 23.
    sm: the oldest GPU generation that engines are for, such as 89; default: 80, or what the recipe's formats need.
    weight_storage: of weights of at most four bits in the ONNX files: int8; int4, half as large; auto, int4 wherever
        that costs no kernel.
    sensitivity: how many calibration images to measure on what each block and layer costs.
    replay: how many evaluation images to keep in the folder with their outputs, for `verify_artifact`; 0 keeps none.
    size_budget, speed_budget: with the recipe "auto": a format for each layer, so that model.onnx takes at most so many
        megabytes, or matrix products are at least so many times as fast as in floats; with neither, the smallest mix
        of formats that keeps max_drop.
    gpu: with the recipe "auto": the card whose roofline tells what a product takes on targets that run on GPUs, such as
        "L4" (`measure.gpus`); without one it goes by types. Of runtimes that run here products are timed.
    embed_preprocessing: write `model.pixels.onnx` too, which takes uint8 pixels and normalises them itself, and
        `model.images.onnx`, which also resizes and crops them, in ONNX Runtime on a CPU.
    originals: from an earlier build of the same model on the same images, so that its original is not run again.

    Under torchrun every process helps to quantize; the first one does the rest, and the others return None.

    Raises:
        UserError: bad input; whatever `out` held before is untouched.
    """
    request = Request.of(
        model,
        weights=weights,
        backbone=backbone,
        divergence=divergence,
        images=images,
        eval_images=eval_images,
        recipe=recipe,
        settings=settings,
        targets=targets,
        out=out,
        device=device,
        seed=seed,
        max_drop=max_drop,
        sensitivity=sensitivity,
        task=task,
        evaluate=evaluate,
        min_agreement=min_agreement,
        min_cosine=min_cosine,
        class_map=class_map,
        eval_coco=eval_coco,
        eval_maps=eval_maps,
        bank=bank,
        bank_maps=bank_maps,
        image_size=image_size,
        in_chans=in_chans,
        preprocessing=preprocessing,
        opset=opset,
        weight_storage=weight_storage,
        sm=sm,
        replay=replay,
        embed_preprocessing=embed_preprocessing,
        size_budget=size_budget,
        speed_budget=speed_budget,
        gpu=gpu,
    )
    return run_request(request, overwrite=overwrite, resume=resume, progress=progress, originals=originals)


def run_request(
    request: Request,
    *,
    overwrite: bool = False,
    resume: bool = False,
    progress: Progress | None = None,
    originals: Originals | None = None,
) -> BuildResult | None:
    """Build what was asked. Arguments and errors as of `build`."""
    with parallel.session(request.device) as group:
        if request.budget is not None and group.size > 1:
            raise UserError(
                f"--recipe {AUTO} tries mixes in one process: choose it in one, and learn from its recipe.yaml"
            )
        if not group.leads:
            if not request.is_onnx:
                assist(request)
            return None
        make = make_from_onnx if request.is_onnx else _make
        with artifacts.staged(request.out, request.as_dict(), overwrite=overwrite, resume=resume) as folder:
            report = make(request, folder, Steps(progress), originals)
    if originals:
        originals.onnx = request.out / FP_ONNX
    return BuildResult(request.out, report, tuple(failures(report, request.max_drop)))


def _make(request: Request, folder: Path, steps: Steps, originals: Originals | None) -> schema.Report:
    """Everything into the folder, the manifest last."""
    runtimes = [find_runtime(name) for name in request.targets]
    with steps.step("load"):
        loaded = load(request)
        artifacts.check_space(folder, _BYTES_PER_PARAMETER * loaded.parameters + _BYTES_ALWAYS)
        shown, inside = loaded.shown(loaded.calibration), not loaded.whole.is_encoder
        announce(loaded.encoder, shown, request.recipe, runtimes, inside=inside)
    mix = None
    if request.budget is not None:
        with steps.step("choose formats") as count:
            request, mix = _choose(request, loaded, folder, count)
    with steps.step("quantize") as count:
        quantized = _quantize(request, loaded, folder, count)
    with steps.step("export"):
        earlier = originals.onnx if originals else None
        contract = contract_for(request, loaded.info, loaded.evaluation, loaded.measures)
        head = _write_head(folder, loaded, contract)
        contract = whole_contract(contract, loaded.whole, quantized.input_shape, loaded.reads, head.facts)
        files = write_files(
            folder,
            quantized,
            loaded.encoder,
            loaded.shown(loaded.calibration),
            runtimes,
            earlier,
            contract,
            request.opset,
            request.weight_storage,
        )
        told = [write_pixels(files.onnx), write_images(files.onnx)] if request.embed_preprocessing else []
    if mix is not None:
        with steps.step("budget"):
            mix = with_built(mix, files.onnx, runtimes)
    with steps.step("compile") as count:
        engines = compile_engines(runtimes, files, count, request.sm)
    with steps.step("evaluate") as count:
        sources = of_module(loaded.whole.encoder_original, quantized, files)
        variants = load_variants(sources, files, engines)
        alone = standalone(folder, loaded.whole, head, variants.loaded, loaded.evaluation.take(1), loaded.reads)
        ways = (*loaded.whole.candidates(variants.candidates), *alone.candidates)
        found = measure_rows(ways, loaded.evaluation, loaded.measures, count, originals)
        found.predictions.save(folder / PREDICTIONS)
        read = file_info(loaded.info, contract)
        replay = make_replay(variants.candidates, loaded.shown(loaded.evaluation), read, request.replay)
        if replay is not None:
            with_head(replay, folder, head.facts).save(folder / REPLAY)
    grids = _evaluated(quantized, loaded, found.sample)
    with steps.step("parity"):
        parity = _compare_stages(request, quantized, folder, loaded.shown(loaded.evaluation), variants)
    with steps.step("latency"):
        rows = findings.with_speed(found.rows, {**measure_speed(variants.loaded), **alone.speed()})
    doubts = findings.label_notes(found.predictions, loaded.info.classes)
    whole = loaded.whole.note(ONNX, _outputs(files), loaded.reads is not None, [one.title for one in alone.candidates])
    report = make_report(
        request,
        loaded.info,
        quantized.recipe,
        parameters=loaded.parameters,
        images=(loaded.calibration, loaded.evaluation),
        measures=loaded.measures,
        notes=(
            *loaded.notes,
            *whole,
            *filter(None, [head.note]),
            *doubts,
            *found.notes,
            *quantized.notes,
            *filter(None, [domain_warning(grids)]),
        ),
        files=files,
        engines=engines,
        found=found,
        rows=rows,
        steps=steps.done,
        history=quantized.history,
        grids=grids,
        sensitivity=quantized.sensitivity,
        parity=parity,
        told=told,
        mix=mix,
        choice=quantized.choice,
    )
    write_report(folder, report, quantized.recipe, request.sizes, loaded.info)
    return report


def _choose(request: Request, loaded: Loaded, folder: Path, count: Counter) -> tuple[Request, schema.Mix]:
    """The request with the formats that its budget comes to."""
    search = Search(
        request,
        loaded.whole.model,
        loaded.calibration,
        loaded.evaluation,
        loaded.measures,
        folder / artifacts.STATE / "mix",
        count,
    )
    recipe, record = search.chosen()
    return replace(request, recipe=recipe), record


def _quantize(request: Request, loaded: Loaded, folder: Path, count: Counter) -> QuantizedModel:
    quantized = quantize(
        loaded.whole.model,
        loaded.calibration,
        request.recipe,
        request.targets,
        seed=request.seed,
        device=parallel.own_device(request.device),
        progress=count,
        resume=folder / artifacts.STATE,
        sensitivity=request.sensitivity,
        sm=request.sm,
        backbone=request.backbone,
        divergence=request.divergence,
        accept=request.accept,
    )
    quantized.save(folder / QUANTIZED)
    return quantized


def _write_head(folder: Path, loaded: Loaded, contract: Contract) -> Written:
    """What stands behind the encoder, where that reads images that a runtime can make."""
    if loaded.whole.is_encoder:
        return Written()
    if isinstance(loaded.how_read, str):
        return Written(None, f"{HEAD} was left out: {loaded.how_read}")
    shown = loaded.shown(loaded.evaluation).take(HEAD_IMAGES)
    kind = next(iter(loaded.measures.tasks.values())).kind
    return write_head(folder, loaded.whole, contract.shape[1:], shown, kind, contract.classes)


def _compare_stages(
    request: Request, quantized: QuantizedModel, folder: Path, images: ImageSource, variants: Variants
) -> list[schema.Parity]:
    """Block by block on a few images."""
    weights = compare_weights(folder)
    few = images.take(images_at_once(images.take(1).shape, PARITY_IMAGES)).to(request.device)
    return [findings.to_parity(each, weights) for each in compare_files(quantized, folder, few, variants.tapped)]


def _evaluated(quantized: QuantizedModel, loaded: Loaded, sample: Tensor | None) -> list[GridUse]:
    """How grids are filled, with what is clipped on evaluation images, where those are others."""
    if sample is None or loaded.evaluation is loaded.calibration:
        return list(quantized.grids)
    few = loaded.shown(Arrays(sample, None, Pixels()))
    size = images_at_once(sample.shape, PARITY_IMAGES)
    shares = clipped_shares(quantized.model, (each.images for each in few.batches(size)))
    return with_evaluation(quantized.grids, shares)


def _outputs(files: Files) -> list[str]:
    contract = contract_in(files.onnx)
    return [] if contract is None else [one.name for one in contract.outputs]
