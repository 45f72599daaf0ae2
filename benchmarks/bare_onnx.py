"""A bare ONNX file beside ONNX Runtime's own quantizer and beside the PyTorch model: what each keeps of the answers.

    python benchmarks/bare_onnx.py --models vit_shapes,swin_shapes --recipes w8a8,w4a8,w4a4 --images 256
    python benchmarks/bare_onnx.py --models vit_shapes@transformers --out cells.jsonl    again: only cells that it lacks

A shipped model is exported by torch's older exporter, without a word of how images are prepared; behind
`@transformers` the same weights are, from that package's own class. Then three roads lead to integers: the file through
`graph_calibration`, the file through `onnxruntime.quantization.quantize_static` (8 bits alone: it has no fewer for both
sides of a product), and the PyTorch model through `quantize`. Each is done for the grids of each target, and measured
on the test images as the file of that target, which ONNX Runtime computes on the CPU: that of onnxruntime-cpu with its
optimisations, others as they are written. Where the target's compiler is here, its plan is read too: products in
integers, fused attentions, kernels, and the kernels of the original in the target's floats.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from cells import keep, kept
from in_transformers import in_transformers
from torch import nn

from fimaq_deploy import Recipe, UserError, export_onnx, load_engine, load_model, quantize
from fimaq_deploy.data.bundled import bundled_images
from fimaq_deploy.data.source import ImageSource
from fimaq_deploy.engines.runtimes import find_runtime
from fimaq_deploy.export import convert_fp_onnx
from fimaq_deploy.graph.structure import read_structure
from fimaq_deploy.graph_calibration.intake import read_network
from fimaq_deploy.graph_calibration.quantization import quantize_network
from fimaq_deploy.models.bundled import BUNDLED
from fimaq_deploy.models.describe import image_shape
from fimaq_deploy.verify.block_plan import BlockPlan, audit_log
from fimaq_deploy.verify.layer_audit import builder_log

Array = np.ndarray
Make = Callable[[Path], Path]
HOST, GPU = "onnxruntime-cpu", (8, 9)
_HEADER = """| model | target | recipe | road | top-1 % | agree % | cosine | least cosine | plan | seconds |
| --- | --- | --- | --- | ---: | ---: | ---: | ---: | --- | ---: |"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default="vit_shapes,swin_shapes")
    parser.add_argument("--recipes", default="w8a8,w4a8,w4a4")
    parser.add_argument("--targets", default=f"{HOST},tensorrt-rtx")
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--without-torch", action="store_true", help="leave the PyTorch road out, which takes longest")
    parser.add_argument(
        "--out", type=Path, help="a file of JSON lines, each cell as it is done; cells in it are not made again"
    )
    asked = parser.parse_args()
    torch.set_num_threads(1)
    earlier = {_key(cell): cell for cell in kept(asked.out)}
    print(_HEADER)
    for name in asked.models.split(","):
        with TemporaryDirectory() as folder:
            bench = Bench(name, asked.images, Path(folder))
            for target, recipe, road, make in _roads(bench, asked):
                cell = earlier.get((name, target, recipe, road))
                if cell is None:
                    cell = {**bench.measured(target, make), "recipe": recipe, "road": road}
                    keep(asked.out, cell)
                print(_line(cell), flush=True)


def _key(cell: dict[str, Any]) -> tuple[str, ...]:
    return tuple(cell[name] for name in ("model", "target", "recipe", "road"))


def _line(cell: dict[str, Any]) -> str:
    numbers = (f"{cell['top1']:.2f}", f"{cell['agree']:.2f}", f"{cell['cosine']:.4f}", f"{cell['least']:.3f}")
    return f"| {' | '.join((*_key(cell), *numbers, cell['plan'], str(round(cell['seconds']))))} |"


class Bench:
    """One model: its file, its images, and what the file answers."""

    def __init__(self, name: str, images: int, folder: Path) -> None:
        shipped, _, clothes = name.partition("@")
        self.name, self.folder = name, folder
        self.model: Any = in_transformers(shipped) if clothes else load_model(shipped)
        self.calibration = bundled_images(BUNDLED[shipped].task, "calibration", images)
        test = next(iter(bundled_images(BUNDLED[shipped].task, "test").batches(100_000)))
        assert test.labels is not None
        self.images, self.labels = test.images.numpy(), test.labels.numpy()
        self.file = _exported(self.model, folder / "model.onnx", image_shape(load_model(shipped)))
        self.answers = _run(self.file, HOST)(self.images)

    def measured(self, target: str, make: Make) -> dict[str, Any]:
        """A road to a target's file. Seconds are of the road alone."""
        began = time.perf_counter()
        path = make(self.folder / "made.onnx")
        seconds = time.perf_counter() - began
        found = _run(path, target)(self.images)
        norms = np.linalg.norm(found, axis=1) * np.linalg.norm(self.answers, axis=1)
        cosines = (found * self.answers).sum(1) / norms
        top1, agree = ((found.argmax(1) == other).mean() * 100 for other in (self.labels, self.answers.argmax(1)))
        means = {"top1": top1, "agree": agree, "cosine": cosines.mean(), "least": cosines.min()}
        numbers = {name: float(value) for name, value in means.items()}
        return {"model": self.name, "target": target, **numbers, "plan": self._plan(path, target), "seconds": seconds}

    def _plan(self, path: Path, target: str) -> str:
        """What the target's compiler makes of a file, or why it makes nothing; empty where there is none here."""
        runtime = find_runtime(target)
        if runtime.compiler is None or not runtime.layer_plan or runtime.availability()[0]:
            return ""
        twin = convert_fp_onnx(self.file, self.folder / "twin.onnx", target=target)
        try:
            blocks, original = _blocks(path, target), _blocks(twin, target)
        except UserError as error:
            return f"refused: {str(error)[:200]}"
        int8, gemms = sum(block.int8_gemms for block in blocks), sum(block.gemms for block in blocks)
        kinds = Counter(block.attention for block in blocks if block.attention)
        attention = ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()))
        kernels = [sum(block.kernels for block in each) for each in (blocks, original)]
        return f"{int8} of {gemms} in INT8; attention {attention or 'none'}; {kernels[0]} kernels, {kernels[1]}"


def _roads(bench: Bench, asked: argparse.Namespace) -> Iterator[tuple[str, str, str, Make]]:
    """Target, recipe and road, with what makes the file."""
    yield HOST, "", "original", lambda path: bench.file
    targets = asked.targets.split(",")
    for target in targets:
        for kind in ("QInt8", "QUInt8") if target == HOST else ("QInt8",):
            yield (
                target,
                "8 bits",
                f"quantize_static, {kind}",
                partial(static, bench.file, bench.calibration, kind, target),
            )
    for chosen in asked.recipes.split(","):
        recipe = Recipe.load(chosen).replace(reconstruction={"images": asked.images})
        for target in targets:
            yield target, chosen, "the ONNX file", partial(_of_file, bench, recipe, target)
            if not asked.without_torch:
                yield target, chosen, "the PyTorch model", partial(_of_module, bench, recipe, target)


def _of_file(bench: Bench, recipe: Recipe, target: str, path: Path) -> Path:
    made = quantize_network(read_network(bench.file), bench.calibration, recipe, target)
    return made.traced(None).write(path, target)


def _of_module(bench: Bench, recipe: Recipe, target: str, path: Path) -> Path:
    return export_onnx(quantize(bench.model, bench.calibration, recipe, target), path, target=target)


def _exported(model: nn.Module, path: Path, shape: tuple[int, int, int]) -> Path:
    torch.onnx.export(
        model,
        (torch.zeros(2, *shape),),
        str(path),
        dynamo=False,
        opset_version=17,
        dynamic_axes={"x": {0: "batch"}},
        input_names=["x"],
    )
    return path


def _run(path: Path, target: str) -> Callable[[Array], Array]:
    run = load_engine(path, HOST, optimisations=target == HOST)
    return lambda images: np.concatenate([run(part) for part in np.array_split(images, 32)])


def _blocks(path: Path, target: str) -> tuple[BlockPlan, ...]:
    return audit_log(builder_log(path, find_runtime(target), [GPU]), read_structure(path))


def static(file: Path, images: ImageSource, activations: str, target: str, path: Path) -> Path:
    """A file through `quantize_static`: weights per output channel, products alone, ranges by extremes, its default.

    Biases stay floats for others than ONNX Runtime: TensorRT has no 32-bit integers to dequantize.
    """
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    prepared = path.with_suffix(".prepared.onnx")
    quant_pre_process(file, prepared, skip_symbolic_shape=True)
    quantize_static(
        prepared,
        path,
        _reader(images),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        op_types_to_quantize=["MatMul", "Gemm", "Conv"],
        activation_type=QuantType[activations],
        weight_type=QuantType.QInt8,
        extra_options={
            "ActivationSymmetric": activations == "QInt8",
            "WeightSymmetric": True,
            "QuantizeBias": target == HOST,
        },
    )
    return path


def _reader(images: ImageSource) -> Any:
    from onnxruntime.quantization import CalibrationDataReader

    batches = iter([{"x": batch.images.numpy()} for batch in images.batches(32)])

    class Reader(CalibrationDataReader):
        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(batches, None)

    return Reader()


if __name__ == "__main__":
    main()
