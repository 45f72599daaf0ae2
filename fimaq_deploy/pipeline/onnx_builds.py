"""The road of a build whose model is a bare ONNX file: the same folder, checks and report, from a graph.

1. the file is read, refused in a line or brought into a clean form, and proved to compute the same;
2. it is quantized layer by layer through ONNX Runtime (`graph_calibration`);
3. everything behind that is the road of `module_builds`: files of every target, engines, rows, latencies, the report.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from fimaq_deploy.calibration.findings.domain import domain_warning, with_evaluation
from fimaq_deploy.calibration.findings.float_range import choose_type
from fimaq_deploy.calibration.findings.usage import GridUse
from fimaq_deploy.data.batches import images_at_once
from fimaq_deploy.data.choose import calibration_source
from fimaq_deploy.data.source import ImageSource
from fimaq_deploy.engines.runtimes import find_runtime
from fimaq_deploy.errors import UserError
from fimaq_deploy.graph.edit import fixed, rank
from fimaq_deploy.graph_calibration.float_range import largest_values
from fimaq_deploy.graph_calibration.given import Given
from fimaq_deploy.graph_calibration.intake import Network, read_network
from fimaq_deploy.graph_calibration.proof import require_same
from fimaq_deploy.graph_calibration.quantization import QuantizedGraph, quantize_network
from fimaq_deploy.graph_calibration.usage import clipped_shares, grid_use
from fimaq_deploy.measure.tasks import Traits
from fimaq_deploy.models.describe import ModelInfo
from fimaq_deploy.pipeline import artifacts, findings
from fimaq_deploy.pipeline.candidates import Originals, measure_rows
from fimaq_deploy.pipeline.compiled import compile_engines
from fimaq_deploy.pipeline.contracts import contract_for
from fimaq_deploy.pipeline.exports import IMAGES, Floats, write_traced
from fimaq_deploy.pipeline.measures import Measures, choose_measures
from fimaq_deploy.pipeline.pixels import write_images, write_pixels
from fimaq_deploy.pipeline.publication import make_report, write_report
from fimaq_deploy.pipeline.replays import make_replay
from fimaq_deploy.pipeline.request import Request
from fimaq_deploy.pipeline.rows import Candidate
from fimaq_deploy.pipeline.sources import evaluation_and_bank
from fimaq_deploy.pipeline.speed import measure_speed
from fimaq_deploy.pipeline.steps import Steps
from fimaq_deploy.pipeline.variants import Sources, load_variants
from fimaq_deploy.report import schema
from fimaq_deploy.report.predictions import PREDICTIONS
from fimaq_deploy.runtime.replay import REPLAY

GIVEN = "given-fp32"
_PROOF_IMAGES = 4
_LOOKED_AT = 32  # calibration images that grids are looked at with
NO_PARITY = (
    "blocks were not compared one by one: that needs the PyTorch model, whose fake-quant is the yardstick; the rows "
    "compare the file as written with every runtime instead"
)


def make_from_onnx(request: Request, folder: Path, steps: Steps, originals: Originals | None) -> schema.Report:
    """Everything into the folder, the manifest last.

    Raises:
        UserError: as `build`.
    """
    runtimes = [find_runtime(name) for name in request.targets]
    with steps.step("load"):
        loaded = _load(request)
        artifacts.require_space(folder, loaded.network.parameters)
    with steps.step("quantize") as count:
        quantized = quantize_network(
            loaded.network,
            loaded.calibration,
            request.recipe,
            request.targets,
            sm=request.sm,
            progress=count,
            accept=request.accept,
        )
    with steps.step("export"):
        contract = contract_for(request, loaded.info, loaded.evaluation, loaded.measures)
        original = quantized.traced_original(contract)
        files = write_traced(
            folder,
            quantized.traced(contract),
            lambda path: original.write(path, opset=request.opset),
            lambda: _choose_floats(quantized, loaded.calibration),
            runtimes,
            originals.onnx if originals else None,
            request.opset,
            request.weight_storage,
        )
        inside = [write_pixels(files.onnx), write_images(files.onnx)] if request.embed_preprocessing else []
    with steps.step("compile") as count:
        engines = compile_engines(runtimes, files, count, request.sm)
    with steps.step("evaluate") as count:
        first = Candidate(GIVEN, "ONNX as given", loaded.given, file=loaded.network.path, original=True)
        variants = load_variants(Sources(first), files, engines)
        found = measure_rows(variants.candidates, loaded.evaluation, loaded.measures, count, originals)
        found.predictions.save(folder / PREDICTIONS)
        replay = make_replay(variants.candidates, loaded.evaluation, loaded.info, request.replay)
        if replay is not None:
            replay.save(folder / REPLAY)
    grids = _grids(quantized, loaded, found.sample)
    with steps.step("latency"):
        rows = findings.with_speed(found.rows, measure_speed(variants.loaded))
    doubts = findings.label_notes(found.predictions, loaded.info.classes)
    report = make_report(
        request,
        loaded.info,
        quantized.recipe,
        parameters=loaded.network.parameters,
        images=(loaded.calibration, loaded.evaluation),
        measures=loaded.measures,
        notes=(*doubts, *found.notes, *quantized.notes, NO_PARITY, *filter(None, [domain_warning(grids)])),
        files=files,
        engines=engines,
        found=found,
        rows=rows,
        steps=steps.done,
        history=quantized.history,
        grids=grids,
        told=inside,
    )
    write_report(folder, report, quantized.recipe, request.sizes, loaded.info)
    return report


@dataclass(frozen=True)
class LoadedOnnx:
    """What such a build starts from."""

    network: Network
    given: Given
    info: ModelInfo
    calibration: ImageSource
    evaluation: ImageSource
    measures: Measures


def _load(request: Request) -> LoadedOnnx:
    network = read_network(request.model, request.sizes.image_size, request.sizes.in_chans)
    given, info = Given(network), describe_network(network, request)
    calibration = calibration_source(
        request.model,
        info,
        request.recipe.reconstruction.images,
        images=request.images,
        weights=request.weights,
        seed=request.seed,
    )
    evaluation, bank = evaluation_and_bank(request, info, calibration)
    require_same(network, given, calibration.take(_PROOF_IMAGES).numpy())
    measures = choose_measures(request, given, evaluation, bank, traits_of_file(network))
    return LoadedOnnx(network, given, info, calibration, evaluation, measures)


def describe_network(network: Network, request: Request) -> ModelInfo:
    """What the file reads, by its contract, and what the user says instead.

    Raises:
        UserError: neither says how pixels are normalised.
    """
    told, said = network.contract, request.preprocessing
    if told is None and (said.mean is None or said.std is None):
        raise UserError(
            f"{network.path} does not say how its images are prepared: give --mean and --std of pixels in [0, 1] "
            "(and --crop, --interpolation)"
        )
    if told is not None and told.pixels:
        raise UserError(f"{network.path} takes pixels: name the file that takes prepared images")
    half = (0.5,) * network.shape[0]
    info = ModelInfo(
        name=network.path.name,
        input_shape=network.shape,
        mean=told.mean if told else half,
        std=told.std if told else half,
        interpolation=told.interpolation if told else "bicubic",
        crop_pct=network.shape[1] / told.resize[0] if told else 1.0,
        crop_mode=told.crop_mode if told else "center",
        classes=_classes(network),
        class_names=told.classes if told else (),
        bit_depth=told.bit_depth if told else None,
    )
    return replace(info, **said.changes(network.shape[0]))


def traits_of_file(network: Network) -> Traits:
    """What the contract in a file says of its outputs; nothing where it has none."""
    contract = network.contract
    if contract is None:
        return Traits()
    return Traits(len(contract.classes) or None, kinds={one.name: one.kind for one in contract.outputs if one.kind})


def _classes(network: Network) -> int:
    """The width of the first output, where it is a vector."""
    first = network.graph.outputs[0]
    size = first.shape[1] if rank(first) == 2 and first.shape is not None else 0
    return fixed(first, 1) if isinstance(size, int) and size else 0


def _grids(quantized: QuantizedGraph, loaded: LoadedOnnx, sample: Tensor | None) -> list[GridUse]:
    """How grids are filled, and what of evaluation images lies beyond them."""
    few = loaded.calibration.take(_LOOKED_AT)
    found = grid_use(quantized, _batches(few))
    if sample is None or loaded.evaluation is loaded.calibration:
        return found
    return with_evaluation(found, clipped_shares(quantized, _batches(sample)))


def _batches(images: Tensor) -> list[NDArray[np.float32]]:
    return [each.numpy() for each in images.split(images_at_once(images.shape, 8))]


def _choose_floats(quantized: QuantizedGraph, images: ImageSource) -> Floats:
    batches = _batches(images.take(IMAGES))
    return Floats(*choose_type([largest_values(model, batches) for model in (quantized.model, quantized.original)]))
