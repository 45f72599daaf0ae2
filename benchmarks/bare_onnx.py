"""A bare ONNX file beside ONNX Runtime's own quantizer and beside the PyTorch model: what each keeps of the answers.

    python benchmarks/bare_onnx.py --models vit_shapes,swin_shapes --recipes w8a8,w4a8,w4a4 --images 256

A shipped model is exported by torch without a word of how images are prepared. Then three roads lead to integers for
one target: the file through `graph_calibration`, the file through `onnxruntime.quantization.quantize_static` (8 bits
alone: it has no fewer for both sides of a product), and the PyTorch model through `quantize`. All are measured on the
test images, as files run by ONNX Runtime. A line of the table is printed as soon as it is known.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch

from fimaq_deploy import Recipe, export_onnx, load_model, quantize
from fimaq_deploy.data.bundled import bundled_images
from fimaq_deploy.data.source import ImageSource
from fimaq_deploy.engines.onnxruntime import open_session
from fimaq_deploy.graph_calibration.intake import read_network
from fimaq_deploy.graph_calibration.quantization import quantize_network
from fimaq_deploy.models.bundled import BUNDLED
from fimaq_deploy.models.describe import image_shape

Run = Callable[[np.ndarray], np.ndarray]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default="vit_shapes,swin_shapes")
    parser.add_argument("--recipes", default="w8a8,w4a8,w4a4")
    parser.add_argument("--target", default="onnxruntime-cpu")
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--without-torch", action="store_true", help="leave the PyTorch road out, which takes longest")
    asked = parser.parse_args()
    print("| model | recipe | road | top-1 % | agree % | cosine | least cosine | seconds |")
    print("| --- | --- | --- | ---: | ---: | ---: | ---: | ---: |")
    for name in asked.models.split(","):
        with TemporaryDirectory() as folder:
            for line in _rows(name, asked, Path(folder)):
                print(line, flush=True)


def _rows(name: str, asked: argparse.Namespace, folder: Path) -> Iterator[str]:
    model, task = load_model(name), BUNDLED[name].task
    calibration = bundled_images(task, "calibration", asked.images)
    test = next(iter(bundled_images(task, "test").batches(100_000)))
    assert test.labels is not None
    images, labels = test.images.numpy(), test.labels.numpy()
    file = folder / "model.onnx"
    torch.onnx.export(
        model,
        (torch.zeros(2, *image_shape(model)),),
        str(file),
        dynamo=False,
        opset_version=17,
        dynamic_axes={"x": {0: "batch"}},
        input_names=["x"],
    )
    original = _run(file)(images)
    yield f"| {name} | | original | {100 * (original.argmax(1) == labels).mean():.2f} | | | | |"

    def line(recipe: str, road: str, path: Path, seconds: float) -> str:
        found = _run(path)(images)
        norms = np.linalg.norm(found, axis=1) * np.linalg.norm(original, axis=1)
        cosines = (found * original).sum(1) / norms
        top1, agree = ((found.argmax(1) == other).mean() * 100 for other in (labels, original.argmax(1)))
        cells = (name, recipe, road, f"{top1:.2f}", f"{agree:.2f}", f"{cosines.mean():.4f}", f"{cosines.min():.3f}")
        return f"| {' | '.join(cells)} | {seconds:.0f} |"

    began = time.perf_counter()
    for activations in ("QInt8", "QUInt8"):
        path = folder / f"static.{activations}.onnx"
        _static(file, path, calibration, activations)
        yield line("8 bits", f"quantize_static, {activations}", path, time.perf_counter() - began)
        began = time.perf_counter()
    for chosen in asked.recipes.split(","):
        recipe = Recipe.load(chosen).replace(reconstruction={"images": asked.images})
        began = time.perf_counter()
        made = quantize_network(read_network(file), calibration, recipe, asked.target)
        path = made.traced(None).write(folder / "graph.onnx")
        yield line(chosen, "the ONNX file", path, time.perf_counter() - began)
        if not asked.without_torch:
            began = time.perf_counter()
            quantized = quantize(model, calibration, recipe, asked.target)
            path = export_onnx(quantized, folder / "module.onnx")
            yield line(chosen, "the PyTorch model", path, time.perf_counter() - began)


def _run(path: Path) -> Run:
    session = open_session(path)
    name = session.get_inputs()[0].name
    return lambda images: np.concatenate([session.run(None, {name: part})[0] for part in np.array_split(images, 32)])


def _static(file: Path, path: Path, images: ImageSource, activations: str) -> None:
    """Weights per output channel, products alone, ranges by their extremes, which is its default."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    batches = iter([{"x": batch.images.numpy()} for batch in images.batches(32)])

    class Reader(CalibrationDataReader):  # type: ignore[misc]  # it comes without types
        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(batches, None)

    prepared = path.with_suffix(".prepared.onnx")
    quant_pre_process(file, prepared, skip_symbolic_shape=True)
    quantize_static(
        prepared,
        path,
        Reader(),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        op_types_to_quantize=["MatMul", "Gemm", "Conv"],
        activation_type=QuantType[activations],
        weight_type=QuantType.QInt8,
        extra_options={"ActivationSymmetric": activations == "QInt8", "WeightSymmetric": True},
    )


if __name__ == "__main__":
    main()
