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

Modules take `module_builds`, bare ONNX files `onnx_builds`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fimaq_deploy.calibration import parallel
from fimaq_deploy.calibration.rest import Whole as Divergence
from fimaq_deploy.data.intake import Images
from fimaq_deploy.errors import UserError
from fimaq_deploy.measure.own import OwnFunction
from fimaq_deploy.measure.tasks import TaskChoice
from fimaq_deploy.models.preprocessing import Preprocessing
from fimaq_deploy.pipeline import artifacts
from fimaq_deploy.pipeline.arguments import AUTO, REPLAYED
from fimaq_deploy.pipeline.candidates import Originals
from fimaq_deploy.pipeline.exports import FP_ONNX
from fimaq_deploy.pipeline.loaded import assist
from fimaq_deploy.pipeline.module_builds import make_from_module
from fimaq_deploy.pipeline.onnx_builds import make_from_onnx
from fimaq_deploy.pipeline.request import Request
from fimaq_deploy.pipeline.steps import Progress, Steps
from fimaq_deploy.recipe import Recipe
from fimaq_deploy.report import schema
from fimaq_deploy.report.gates import failures
from fimaq_deploy.target import WeightStorage


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
        make = make_from_onnx if request.is_onnx else make_from_module
        with artifacts.staged(request.out, request.as_dict(), overwrite=overwrite, resume=resume) as folder:
            report = make(request, folder, Steps(progress), originals)
    if originals:
        originals.onnx = request.out / FP_ONNX
    return BuildResult(request.out, report, tuple(failures(report, request.max_drop)))
