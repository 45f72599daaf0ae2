"""A trained model of `transformers`, exported by plain torch.onnx.export, through `build --model x.onnx`.

The weights are the shipped ones in that package's own classes, so what a build keeps can be told on test images, beside
`quantize_static` and beside the PyTorch model.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import fimaq_deploy as fd
from fimaq_deploy.data.bundled import bundled_images
from fimaq_deploy.models.preprocessing import Preprocessing
from fimaq_deploy.pipeline.onnx_builds import GIVEN

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

pytestmark = pytest.mark.slow

TARGETS = ("onnxruntime-cpu", "tensorrt-rtx")
SETTINGS = ("reconstruction.images=64",)


@pytest.fixture(scope="module", params=["vit_digits", "swin_digits"])
def road(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[nn.Module, Path]:
    """The module and its file, written by torch alone."""
    pytest.importorskip("transformers")
    from in_transformers import in_transformers

    module = in_transformers(request.param)
    path = tmp_path_factory.mktemp(request.param) / "x.onnx"
    torch.onnx.export(
        module,
        (torch.zeros(2, 1, 16, 16),),
        str(path),
        dynamo=False,
        opset_version=17,
        input_names=["x"],
        dynamic_axes={"x": {0: "batch"}},
    )
    return module, path


def test_it_keeps_what_other_roads_keep(road: tuple[nn.Module, Path], tmp_path: Path) -> None:
    from bare_onnx import static

    module, path = road
    calibration = bundled_images("digits", "calibration", 64)
    test = next(iter(bundled_images("digits", "test").batches(400)))
    assert test.labels is not None
    images, labels = test.images.numpy(), test.labels.numpy()
    built = fd.build(
        str(path),
        images=calibration.take(64).numpy(),
        eval_images=(images, labels),
        preprocessing=Preprocessing(mean=(0.5,), std=(0.5,)),
        settings=SETTINGS,
        targets=TARGETS,
        out=tmp_path / "built",
    )
    assert built is not None and fd.verify_artifact(built.out).good
    assert not any(target.failed for target in built.report.targets)
    rows = {row.id: row for row in built.report.rows}
    top1 = {name: rows[name].accuracy.top1 for name in (GIVEN, "onnxruntime-cpu")}
    assert top1[GIVEN] > 90 and top1["onnxruntime-cpu"] >= top1[GIVEN] - 1
    logits = fd.load_engine(path)(images)
    quantized = fd.quantize(module, calibration, fd.Recipe.load("w8a8").with_settings(SETTINGS), "onnxruntime-cpu")
    files = {
        "file": built.out / "model.onnx",
        "rtx": built.out / "model.tensorrt-rtx.onnx",
        "static": static(path, calibration, "QUInt8", "onnxruntime-cpu", tmp_path / "static.onnx"),
        "module": fd.export_onnx(quantized, tmp_path / "module.onnx"),
    }
    cosines = {}
    for name, file in files.items():
        found = fd.load_engine(file, "onnxruntime-cpu", optimisations=name != "rtx")(images)
        norms = np.linalg.norm(found, axis=1) * np.linalg.norm(logits, axis=1)
        cosines[name] = float(((found * logits).sum(1) / norms).mean())
        assert 100 * (found.argmax(1) == labels).mean() >= top1[GIVEN] - 1, name
    assert min(cosines.values()) > 0.995
    assert 1 - cosines["file"] < 2 * (1 - cosines["static"]), cosines
    assert 1 - cosines["file"] < 15 * (1 - cosines["module"]), cosines


def test_its_engine_multiplies_integers_and_fuses_attention(road: tuple[nn.Module, Path], tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx")
    from fimaq_deploy.graph_calibration.intake import read_network
    from fimaq_deploy.graph_calibration.quantization import quantize_network

    recipe = fd.Recipe.load("w8a8").with_settings(
        [*SETTINGS, "reconstruction.iterations=0", "scale_search.candidates=1"]
    )
    made = quantize_network(read_network(road[1]), bundled_images("digits", "calibration", 64), recipe, "tensorrt-rtx")
    (found,) = fd.audit(made.traced(None).write(tmp_path / "model.onnx", "tensorrt-rtx"), "tensorrt-rtx")
    assert not found.broken and {block.attention for block in found.blocks} <= {"int8", None}
    assert sum(block.int8_gemms for block in found.blocks) == sum(block.gemms for block in found.blocks) >= 18
