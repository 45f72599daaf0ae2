"""The road of a build whose model is a module: what `builds` says of steps 2 to 9, one after the other.

Each step hands its result to the next: Loaded, QuantizedModel, Files, Engines, Variants, rows, Report. A bare ONNX file
takes `onnx_builds`.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from torch import Tensor

from fimaq_deploy.calibration import parallel
from fimaq_deploy.calibration.findings.domain import domain_warning, with_evaluation
from fimaq_deploy.calibration.findings.usage import GridUse, clipped_shares
from fimaq_deploy.calibration.quantization import quantize
from fimaq_deploy.calibration.quantized_model import QuantizedModel
from fimaq_deploy.contract import Contract
from fimaq_deploy.data.batches import images_at_once
from fimaq_deploy.data.memory import Arrays
from fimaq_deploy.data.pixels import Pixels
from fimaq_deploy.data.source import ImageSource
from fimaq_deploy.engines.runtimes import ONNX, find_runtime
from fimaq_deploy.pipeline import artifacts, findings
from fimaq_deploy.pipeline.budgets import Search
from fimaq_deploy.pipeline.built_mix import with_built
from fimaq_deploy.pipeline.candidates import Originals, measure_rows
from fimaq_deploy.pipeline.compiled import compile_engines
from fimaq_deploy.pipeline.contracts import contract_for, file_info, foretold_contract, whole_contract
from fimaq_deploy.pipeline.exports import Files, write_files
from fimaq_deploy.pipeline.foresight import announce
from fimaq_deploy.pipeline.heads import IMAGES as HEAD_IMAGES
from fimaq_deploy.pipeline.heads import Written, with_head, write_head
from fimaq_deploy.pipeline.loaded import Loaded, load
from fimaq_deploy.pipeline.pixels import write_images, write_pixels
from fimaq_deploy.pipeline.publication import make_report, write_report
from fimaq_deploy.pipeline.replays import make_replay
from fimaq_deploy.pipeline.request import Request
from fimaq_deploy.pipeline.speed import measure_speed
from fimaq_deploy.pipeline.standalone import standalone
from fimaq_deploy.pipeline.steps import Counter, Steps
from fimaq_deploy.pipeline.variants import Variants, load_variants, of_module
from fimaq_deploy.report import schema
from fimaq_deploy.report.predictions import PREDICTIONS
from fimaq_deploy.runtime.head import HEAD
from fimaq_deploy.runtime.onnx_metadata import contract_in
from fimaq_deploy.runtime.replay import REPLAY
from fimaq_deploy.verify.block_parity import QUANTIZED, compare_files, compare_weights

PARITY_IMAGES = 4


def make_from_module(request: Request, folder: Path, steps: Steps, originals: Originals | None) -> schema.Report:
    """Everything into the folder, the manifest last.

    Raises:
        UserError: as `build`.
    """
    runtimes = [find_runtime(name) for name in request.targets]
    with steps.step("load"):
        loaded = load(request)
        artifacts.require_space(folder, loaded.parameters)
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
        foretold_contract(request, loaded),
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
