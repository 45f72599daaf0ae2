"""Reports to make pages from: a real build, and one with something in every room of the schema."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import numpy as np
import pytest

from fimaq_deploy import report as r
from fimaq_deploy.engines.machine import describe_environment
from fimaq_deploy.measure.tasks import Task, find_tasks
from fimaq_deploy.measure.tasks.traits import Traits
from fimaq_deploy.pipeline.builds import BuildResult, build
from fimaq_deploy.recipe import Recipe
from fimaq_deploy.report.schema import Figure, Output

SHAPES = {
    "classes": (9,),
    "embedding": (9,),
    "multilabel": (9,),
    "regression": (1,),
    "dense": (5, 9),
    "detection": (5, 8),
}
CPU = "onnxruntime-cpu"
BLOCKS = [f"blocks.{number}" for number in range(12)]


def environment() -> r.Environment:
    """This machine's."""
    return r.Environment.model_validate(asdict(describe_environment()))


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> BuildResult:
    """A quick build of a shipped model."""
    out = tmp_path_factory.mktemp("report") / "vit_digits"
    recipe = Recipe.load("w4a8").with_settings(["reconstruction.iterations=2", "tuning.iterations=0"])
    return build("vit_digits", recipe=recipe, targets="onnxruntime-cpu", out=out, device="cpu", sensitivity=32)


@pytest.fixture
def small_report() -> Callable[..., r.Report]:
    """`small_report(top1=97.5, labelled=True)`: one row that ran and one that did not, of a report before 0.2.0."""
    return _small


def _small(top1: float = 97.5, *, labelled: bool = True) -> r.Report:
    def accuracy(value: float) -> r.Accuracy | None:
        return r.Accuracy(images=600, top1=value, top5=100.0, interval=(value - 1, value + 1)) if labelled else None

    same = r.Comparison(to="pytorch-fp32", agreement=99.5, largest_difference=0.12345)
    fast = r.Latency(
        batch_size=1, p50_ms=0.81, p90_ms=0.9, p99_ms=1.0, images_per_second=1235, ratio_to="onnx-fp32", speedup=1.25
    )
    return r.Report(
        created="2026-01-02T03:04:05+00:00",
        command="fimaq-deploy build --model swin_digits",
        seed=0,
        model=r.Model(name="swin_digits", weights="pretrained", input_shape=(1, 16, 16), classes=10, parameters=123),
        recipe={"name": "w8a8"},
        data=r.Data(
            calibration="digits", calibration_images=256, evaluation="digits", evaluation_images=600, labelled=labelled
        ),
        environment=environment(),
        targets=[r.TargetStatus(name="tensorrt-rtx", not_run="no NVIDIA driver", compile_seconds=0.53)],
        rows=[
            r.Row(id="pytorch-fp32", title="PyTorch FP32", accuracy=accuracy(98.0)),
            r.Row(id="onnx-fp32", title="ONNX FP32", file="model.fp32.onnx", size_bytes=4_000_000),
            r.Row(
                id="onnxruntime-cpu",
                title="ONNX Runtime",
                deployed=True,
                accuracy=accuracy(top1),
                comparison=same,
                latency=[fast],
                file="model.onnx",
                size_bytes=999_600,
            ),
            r.Row(id="tensorrt-rtx", title="TensorRT-RTX", deployed=True, not_run="no driver", size_bytes=2_000_000),
        ],
        blocks=[r.Block(name="blocks.0", loss_before=0.01, loss_after=0.001, iterations=100, seconds=1.5)],
        steps=[r.Step(name="quantize", seconds=3.2)],
    )


@pytest.fixture
def full_report() -> r.Report:
    """Invented figures in every field, long names and big numbers among them."""
    return r.Report(
        created="2026-01-02T03:04:05+00:00",
        command="fimaq-deploy build --model deit_s --images 'my images' --recipe w4a8 --out build/deit_s",
        seed=3,
        max_drop=1.0,
        model=r.Model(
            name="deit_s", weights="pretrained", input_shape=(3, 224, 224), classes=1000, parameters=22_050_664
        ),
        recipe={"name": "w4a8", "weights": {"bits": 4}, "activations": {"bits": 8}},
        data=r.Data(
            calibration="folder my images",
            calibration_images=1024,
            evaluation="folder validation",
            evaluation_images=50_000,
            labelled=True,
            notes=["2 unreadable images were left out"],
        ),
        environment=environment().model_copy(update={"gpu": "NVIDIA L4", "driver": "570.1"}),
        targets=[
            r.TargetStatus(name="tensorrt-rtx", compile_seconds=4.2),
            r.TargetStatus(name="openvino-cpu", not_built="the openvino package is not installed"),
        ],
        rows=rows(),
        blocks=[block(number, name) for number, name in enumerate(BLOCKS)],
        steps=[r.Step(name=name, seconds=seconds) for name, seconds in (("load", 1.0), ("quantize", 812.5))],
        grids=[grid(name, kind) for name in BLOCKS for kind in ("weight", "activation")],
        sensitivity=[
            *(sensitivity(name, "block", 0.1 / (n + 1)) for n, name in enumerate(BLOCKS)),
            *(
                sensitivity(f"{name}.mlp.fc{fc}", "layer", 0.01 * n + fc)
                for n, name in enumerate(BLOCKS)
                for fc in (1, 2)
            ),
        ],
        audits=[
            r.Audit(
                target="tensorrt-rtx",
                compute_capability="8.9",
                blocks=[audit_block(name, 3 if name == "blocks.3" else 4) for name in BLOCKS],
                broken=["a GEMM of blocks.3 runs in FP16"],
            )
        ],
        parity=[
            r.Parity(to="onnx-reference", stages=[stage(name, 1e-6 * n) for n, name in enumerate(BLOCKS)]),
            r.Parity(
                to="tensorrt-rtx",
                stages=[stage(name, 1e-3 * (n + 1)) for n, name in enumerate(BLOCKS)],
                first_parting="blocks.7",
            ),
        ],
        predictions="predictions.safetensors",
    )


def rows() -> list[r.Row]:
    return [
        r.Row(id="pytorch-fp32", title="PyTorch FP32", accuracy=accuracy(79.83)),
        row("onnx-fp32", "ONNX Runtime FP32", 79.83, 21.0, None, 88_200_000),
        row("tensorrt-fp16", "TensorRT-RTX FP16", 79.81, 1.9, None, 45_000_000),
        row("onnxruntime-cpu", "ONNX Runtime CPU", 79.31, 11.8, "onnx-fp32", 22_800_000),
        row("tensorrt-rtx", "TensorRT-RTX", 79.26, 1.1, "tensorrt-fp16", 33_900_000),
        r.Row(id="openvino-cpu", title="OpenVINO CPU", deployed=True, not_run="the openvino package is not installed"),
    ]


def row(name: str, title: str, top1: float, ms: float, ratio_to: str | None, size_bytes: int) -> r.Row:
    return r.Row(
        id=name,
        title=title,
        deployed=ratio_to is not None,
        accuracy=accuracy(top1),
        comparison=r.Comparison(to="pytorch-fp32", agreement=97.3, largest_difference=0.81),
        latency=[latency(size, ms, ratio_to) for size in (1, 8, 32)],
        file=f"model.{name}",
        size_bytes=size_bytes,
        peak_memory_bytes=4 * size_bytes,
    )


def accuracy(top1: float) -> r.Accuracy:
    return r.Accuracy(images=50_000, top1=top1, top5=95.0, interval=(top1 - 0.35, top1 + 0.35))


def latency(size: int, ms: float, ratio_to: str | None) -> r.Latency:
    p50 = ms * size**0.8
    paired = {"ratio_to": ratio_to, "speedup": 1.75, "speedup_interval": (1.7, 1.8)} if ratio_to else {}
    return r.Latency(
        batch_size=size,
        p50_ms=p50,
        p90_ms=1.1 * p50,
        p99_ms=1.5 * p50,
        images_per_second=1000 * size / p50,
        floor_ms=0.4 * p50,
        **paired,
    )


def block(number: int, name: str) -> r.Block:
    after = 0.002 * (number + 1)
    curve = [(step, after * (1 + 3 * 0.9 ** (step / 10 + number))) for step in range(0, 500, 25)]
    return r.Block(name=name, loss_before=3 * after, loss_after=after, iterations=500, seconds=66.0, curve=curve)


def grid(name: str, kind: str) -> r.GridUse:
    levels = 15 if kind == "weight" else 255
    return r.GridUse(
        name=f"{name}.attn.qkv", kind=kind, bits=levels.bit_length(), used_levels=levels - 3, levels=levels, clipped=0.4
    )


def sensitivity(name: str, kind: str, alone: float) -> r.Sensitivity:
    return r.Sensitivity(name=name, kind=kind, alone=alone, spared=0.8 * alone)


def audit_block(name: str, int8_gemms: int) -> r.AuditBlock:
    return r.AuditBlock(
        name=name,
        kernels=7,
        gemms=4,
        int8_gemms=int8_gemms,
        attention="int8",
        dequantized_weights=0,
        conversions=1,
        twin_kernels=8,
    )


def stage(name: str, difference: float) -> r.StageParity:
    return r.StageParity(name=name, largest_difference=difference, differing=0.01)


def task(kind: str) -> Task:
    array = np.zeros((2, *SHAPES[kind]), np.float32)
    return find_tasks({"output": array}, Traits(), {"output": kind})["output"]


def output(kind: str, name: str = "output") -> Output:
    """As a report tells it, with all figures of its kind."""
    names = r.schema.Meaning.model_fields
    figures = [r.schema.Meaning(**{name: getattr(one, name) for name in names}) for one in task(kind).figures]
    return Output(name=name, task=kind, shape=list(SHAPES[kind]), figures=figures)


@pytest.fixture
def answering(full_report: r.Report) -> Callable[..., r.Report]:
    """`answering(kind, figure=value, ...)`: a report of one row to ship that has these figures, and of its original.

    Pairs as values are a figure and its interval, triples also that of the loss. labelled: the original's own figures
    against labels.
    """

    def made(kind: str, labelled: dict[str, float] | None = None, **values: Any) -> r.Report:
        told = output(kind)
        against = {meaning.name: meaning.of for meaning in told.figures}
        figures = {name: _figure(name, value) for name, value in values.items()}
        row = r.Row(
            id=CPU,
            title="ONNX Runtime CPU",
            deployed=True,
            original=r.Comparison(
                to="pytorch-fp32",
                agreement=None,
                largest_difference=0.1,
                figures=[one for name, one in figures.items() if against[name] == "original"],
            ),
            labelled=[one for name, one in figures.items() if against[name] == "labels"],
        )
        known = [_figure(name, value) for name, value in (labelled or {}).items()]
        first = r.Row(id="pytorch-fp32", title="PyTorch FP32", labelled=known)
        changes = {"rows": [first, row], "outputs": [told], "audits": [], "max_drop": None, "parity": []}
        return full_report.model_copy(update={**changes, "targets": [r.TargetStatus(name=CPU)]})

    return made


def _figure(name: str, value: Any) -> Figure:
    number, interval, *lost = value if isinstance(value, tuple) else (value, None)
    return Figure(output="output", name=name, value=number, interval=interval, loss_interval=next(iter(lost), None))
