"""`fimaq-deploy build`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.table import Table

from fimaq_deploy.cli.console import StepLine, print_failure, stdout
from fimaq_deploy.cli.options import JsonOption, write_document

if TYPE_CHECKING:
    from fimaq_deploy.pipeline.builds import BuildResult
    from fimaq_deploy.report.schema import Report


_HEADS = 45  # characters of all together


def build(
    model: Annotated[
        str,
        typer.Option(
            help="A shipped or timm model, a Hugging Face folder, package.module:factory, or a bare ONNX file."
        ),
    ],
    weights: Annotated[
        str, typer.Option(help="pretrained, random, or a checkpoint: FILE, FOLDER or FILE#SET.")
    ] = "pretrained",
    backbone: Annotated[
        str | None,
        typer.Option(metavar="PATH", help="The encoder inside of the model, default: the one that is there."),
    ] = None,
    divergence: Annotated[
        str | None,
        typer.Option(
            metavar="PACKAGE.MODULE:FUNCTION",
            help="What its errors cost: function(reference, answer) of the whole model, detections or classes.",
        ),
    ] = None,
    images: Annotated[
        Path | None, typer.Option(help="Calibration images: a folder, or a .npy, .npz or .safetensors file.")
    ] = None,
    eval_images: Annotated[
        Path | None, typer.Option(help="The same to measure on, or a folder with one sub-folder per class.")
    ] = None,
    recipe: Annotated[str, typer.Option(help="A preset (see `recipes`), a YAML file, or auto with a budget.")] = "w8a8",
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="A recipe field, as in reconstruction.iterations=200. Repeatable.")
    ] = None,
    target: Annotated[
        list[str] | None,
        typer.Option(help="Where it will run (see `doctor`). Repeatable; default: whatever works here."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Artifact folder; default: build/MODEL.")] = None,
    device: Annotated[str | None, typer.Option(help="Where PyTorch learns, such as cpu or cuda.")] = None,
    seed: Annotated[int, typer.Option(help="Of the learning and of random weights.")] = 0,
    task: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[OUTPUT=]KIND",
            help="What the model returns: classes, embedding, multilabel, regression, dense, segmentation, depth or "
            "detection. Repeatable; default: what its outputs and the labels tell.",
        ),
    ] = None,
    evaluate: Annotated[
        str | None,
        typer.Option(metavar="PACKAGE.MODULE:FUNCTION", help="A figure of your own: function(predict) -> number."),
    ] = None,
    max_drop: Annotated[
        float | None,
        typer.Option(help="Fail when more is lost against the labels (points of top-1, mAP, …) or in your own figure."),
    ] = None,
    min_agreement: Annotated[
        float | None,
        typer.Option(metavar="PERCENT", help="Fail when fewer answers are those of the original; needs no labels."),
    ] = None,
    min_cosine: Annotated[
        float | None, typer.Option(help="Fail when outputs are farther from the original's; needs no labels.")
    ] = None,
    class_map: Annotated[
        Path | None, typer.Option(help="Classes of the folders in --eval-images: a name a line, or JSON.")
    ] = None,
    eval_coco: Annotated[
        Path | None, typer.Option(help="COCO annotations of the folder in --eval-images: a JSON file.")
    ] = None,
    eval_maps: Annotated[
        Path | None, typer.Option(help="Maps of classes, PNG, of the folder in --eval-images: a folder.")
    ] = None,
    bank: Annotated[
        Path | None,
        typer.Option(
            help="Labelled images that neighbours of embeddings vote from and a probe is fitted to: a folder with one "
            "sub-folder per class, or a file of arrays."
        ),
    ] = None,
    bank_maps: Annotated[
        Path | None, typer.Option(help="Maps of classes, PNG, of the folder in --bank: a folder.")
    ] = None,
    image_size: Annotated[
        str | None, typer.Option(metavar="SIDE|HxW", help="Of the images that the model is made for.")
    ] = None,
    in_chans: Annotated[int | None, typer.Option(help="Channels of the images that the model is made for.")] = None,
    mean: Annotated[str | None, typer.Option(metavar="NUMBERS", help="Of pixels in [0, 1], with commas.")] = None,
    std: Annotated[str | None, typer.Option(metavar="NUMBERS", help="Of pixels in [0, 1], with commas.")] = None,
    crop: Annotated[float | None, typer.Option(help="Share of the shorter side that the crop keeps.")] = None,
    crop_mode: Annotated[str | None, typer.Option(help="center, squash or border.")] = None,
    interpolation: Annotated[str | None, typer.Option(help="Such as bicubic or bilinear.")] = None,
    bit_depth: Annotated[
        int | None, typer.Option(help="Of files with more than 8 bits that hold fewer than they declare.")
    ] = None,
    opset: Annotated[int | None, typer.Option(help="Of the ONNX files: 17, 19, 21 or 23; 21 if not said.")] = None,
    size_budget: Annotated[
        float | None,
        typer.Option(
            metavar="MB", help="With --recipe auto: formats for each layer, so that model.onnx takes no more."
        ),
    ] = None,
    speed_budget: Annotated[
        float | None,
        typer.Option(metavar="TIMES", help="With --recipe auto: matrix products that much faster than in floats."),
    ] = None,
    gpu: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="With --recipe auto: the card whose rates tell what products take, such as L4."
        ),
    ] = None,
    weight_storage: Annotated[
        str,
        typer.Option(metavar="AS", help="Of weights of at most 4 bits: int8, int4, or auto: int4 where it is free."),
    ] = "auto",
    sm: Annotated[
        int | None,
        typer.Option(
            help="The oldest GPU generation that engines are for, such as 89; default: 80, or what FP8 needs."
        ),
    ] = None,
    sensitivity: Annotated[int, typer.Option(help="Measure on so many images what each block and layer costs.")] = 0,
    replay: Annotated[
        int, typer.Option(help="Keep so many evaluation images with their outputs for `verify`; 0 keeps none.")
    ] = 8,
    embed_preprocessing: Annotated[
        bool, typer.Option("--embed-preprocessing", help="Write files that take uint8 pixels, and images of any size.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an earlier build.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with an interrupted build.")] = False,
    json: JsonOption = None,
) -> None:
    """Quantize, export, compile, evaluate and report, into one folder."""
    from fimaq_deploy.models.preprocessing import Preprocessing, numbers
    from fimaq_deploy.pipeline.builds import build as run_build

    with StepLine() as progress:
        result = run_build(
            model,
            weights=weights,
            backbone=backbone,
            divergence=divergence,
            images=images,
            eval_images=eval_images,
            recipe=recipe,
            settings=settings or (),
            targets=target,
            out=out,
            device=device,
            seed=seed,
            task=task,
            evaluate=evaluate,
            max_drop=max_drop,
            min_agreement=min_agreement,
            min_cosine=min_cosine,
            class_map=class_map,
            eval_coco=eval_coco,
            eval_maps=eval_maps,
            bank=bank,
            bank_maps=bank_maps,
            image_size=image_size,
            in_chans=in_chans,
            preprocessing=Preprocessing(
                numbers("--mean", mean), numbers("--std", std), interpolation, crop, crop_mode, bit_depth
            ),
            opset=opset,
            size_budget=size_budget,
            speed_budget=speed_budget,
            gpu=gpu,
            sm=sm,
            weight_storage=weight_storage,  # type: ignore[arg-type]  # checked there
            sensitivity=sensitivity,
            replay=replay,
            embed_preprocessing=embed_preprocessing,
            overwrite=overwrite,
            resume=resume,
            progress=progress,
        )
    if result is None:  # torchrun started several processes, and this is not the one that prints
        return
    if not write_document(json, result.document()):
        _print_result(result)
    for failure in result.failures:
        print_failure(f"failed: {failure}")
    if result.failures:
        raise typer.Exit(1)


def _heads(report: Report) -> list[str]:
    """In two lines where they are long, so that figures of objects with masks fit a terminal."""
    from fimaq_deploy.report.build_page.table import header

    heads = header(report)
    return [head.replace(" ", "\n", 1) for head in heads] if sum(map(len, heads)) > _HEADS else list(heads)


def _print_result(result: BuildResult) -> None:
    from fimaq_deploy.report.build_page.table import cells, not_run_text
    from fimaq_deploy.report.build_page.verdict import verdict

    report = result.report
    table = Table(*_heads(report), box=SIMPLE_HEAD, padding=0, show_edge=False)
    for column in table.columns:
        column.no_wrap = True
        column.justify = "right" if column.header else "left"
    for row in report.rows:
        table.add_row(*cells(report, row))
    stdout.print(table)
    for row in report.rows:
        if row.not_run is not None:
            stdout.print(f"{row.title}: {not_run_text(row)}", soft_wrap=True)
    stdout.print(verdict(report), soft_wrap=True)
    stdout.print(f"Wrote {result.out}", soft_wrap=True)
