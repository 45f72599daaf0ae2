"""Every family from every source, as a small instance with random weights, on the whole road: one table.

    python benchmarks/families.py                          about a minute a row
    python benchmarks/families.py --rows "timm Eva" --iterations 60 --out rows.jsonl    again: only rows that it lacks

A row makes a model of its library's own class and

- compares the copy that is quantized, before it is, with the model (`copy`: the largest difference, relative);
- learns W8A8 and W4A8 on a few images, and takes the cosine of other images' answers to the model's, the worst image;
- runs W8A8 as an unoptimised ONNX file in ONNX Runtime beside PyTorch (`ONNX`: the largest difference, relative);
- compiles W8A8 and the FP16 model for TensorRT-RTX, which needs no GPU: products in INT8, attention, and the kernels of
  each block beside the FP16 model's.

A row that fails says why, and the command goes on. Weights are drawn with unit gain: with the libraries' own, blocks
hide behind the residual stream. Noise goes in. Nothing here says how well a trained model does.
"""

from __future__ import annotations

import argparse
import json
import math
import time
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from cells import keep, kept
from family_instances import INSTANCES
from torch import Tensor, nn

import fimaq_deploy as fd
from fimaq_deploy.calibration.learning.outputs import tensors_of
from fimaq_deploy.engines.runtimes import find_runtime
from fimaq_deploy.export import export_fp_onnx, export_onnx
from fimaq_deploy.graph.structure import read_structure
from fimaq_deploy.models.families import family_of
from fimaq_deploy.verify.block_plan import BlockPlan, audit_log, kernel_counts
from fimaq_deploy.verify.layer_audit import builder_log

TARGET, GPU = "tensorrt-rtx", (8, 9)
LEAST = {"w8a8": 0.999, "w4a8": 0.99}
LARGEST_COPY, LARGEST_ONNX = 1e-4, 0.05


@dataclass(frozen=True)
class Row:
    """One instance. Numbers are None behind a step that failed, which `failed` names.

    kernels: of the blocks with attention, ours and the FP16 model's. attention: how it runs, by the number of blocks.
    """

    name: str
    family: str = ""
    copy: float | None = None
    cosines: dict[str, float] | None = None
    onnx: float | None = None
    int8: str = ""
    attention: dict[str, int] | None = None
    kernels: tuple[tuple[int, int], ...] = ()
    seconds: float = 0.0
    failed: str = ""

    def problems(self) -> list[str]:
        """What it does not reach."""
        found = [self.failed] if self.failed else []
        found += ["copy differs"] if self.copy is not None and not self.copy < LARGEST_COPY else []
        found += [f"{name} below {LEAST[name]}" for name, one in (self.cosines or {}).items() if not one >= LEAST[name]]
        found += ["ONNX differs"] if self.onnx is not None and not self.onnx < LARGEST_ONNX else []
        found += ["attention unfused"] if "unfused" in (self.attention or {}) else []
        return found

    def line(self) -> str:
        """Of the table."""
        cosines = [f"{one:.5f}" for one in (self.cosines or {}).values()] or ["", ""]
        attention = ", ".join(f"{count} {kind}" for kind, count in (self.attention or {}).items())
        kernels = ", ".join(f"{own}/{twin}" for own, twin in self.kernels)
        copied, onnx = (f"{one:.0e}" if one is not None else "" for one in (self.copy, self.onnx))
        problems = "; ".join(self.problems())
        return f"| {' | '.join((self.name, copied, *cosines, onnx, self.int8, attention, kernels, problems))} |"


HEADER = """| model | copy | W8A8 | W4A8 | ONNX | GEMMs in INT8 | attention | kernels, ours/FP16 | does not reach |
| --- | --- | --- | --- | --- | --- | --- | --- | --- |"""


@torch.no_grad()
def drawn(create: Callable[[], nn.Module], seed: int) -> Any:
    """A module with weights of unit gain, and biases and norms that show."""
    torch.manual_seed(seed)
    model = create()
    for parameter in model.parameters():
        noise = torch.randn(parameter.shape)
        if parameter.ndim > 1:
            parameter.copy_(noise / math.sqrt(parameter[0].numel()))
        else:
            parameter.add_(noise, alpha=0.1)
    return model.eval()


def measured(name: str, create: Callable[[], nn.Module], iterations: int, seed: int = 0) -> Row:
    """Everything that can be said of one instance, as far as it goes."""
    started = time.perf_counter()
    known: dict[str, Any] = {"name": name}
    try:
        for part in _steps(drawn(create, seed), iterations):
            known |= part
    except Exception as error:  # whatever keeps it from the next step is what the table says
        known["failed"] = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    return Row(**known, seconds=time.perf_counter() - started)


def _steps(model: nn.Module, iterations: int) -> Any:
    family = family_of(model)
    yield {"family": family.name}
    family.check(model)
    shape = family.image_shape(model)
    images = torch.randn(64, *shape, generator=torch.Generator().manual_seed(1))
    learned, others = images[:32], images[32:]
    with torch.no_grad():
        expected = _joined(family.original(model)(others))
        yield {"copy": _difference(_joined(family.as_chain(model)(others)), expected)}
    cosines: dict[str, float] = {}
    made = {}
    for recipe in LEAST:
        settings = [f"reconstruction.iterations={iterations}", "reconstruction.images=32", "tuning.iterations=0"]
        made[recipe] = fd.quantize(model, learned, fd.Recipe.load(recipe).with_settings(settings), TARGET)
        cosines[recipe] = _worst_cosine(_joined(made[recipe](others)), expected)
        yield {"cosines": dict(cosines)}
    with TemporaryDirectory() as folder:
        own = made["w8a8"]
        run = fd.load_engine(export_onnx(own, Path(folder) / "model.onnx"), optimisations=False)
        found = [torch.from_numpy(np.asarray(one)) for one in run.outputs(others.numpy()).values()]
        yield {"onnx": _difference(_joined(found), _joined(own(others)))}
        twin = _plan(export_fp_onnx(model, Path(folder) / "fp16.onnx", target=TARGET))
        blocks = _plan(export_onnx(own, Path(folder) / "engine.onnx", target=TARGET), kernel_counts(twin))
    yield _compiled(blocks)


def _compiled(blocks: Sequence[BlockPlan]) -> dict[str, Any]:
    attending = [block for block in blocks if block.attention]
    left = sum(block.left_alone for block in blocks)
    int8, gemms = sum(block.int8_gemms for block in blocks), sum(block.gemms for block in blocks)
    return {
        "int8": f"{int8} of {gemms}" + (f", {left} left alone" if left else ""),
        "attention": dict(Counter(str(block.attention) for block in attending)),
        "kernels": tuple((block.kernels, block.twin_kernels or 0) for block in attending),
    }


def _plan(path: Path, twin: dict[str, int] | None = None) -> tuple[BlockPlan, ...]:
    return audit_log(builder_log(path, find_runtime(TARGET), [GPU]), read_structure(path), twin)


def _joined(outputs: Any) -> Tensor:
    """Every tensor of an output side by side, a row an image."""
    return torch.cat([one.flatten(1) for one in tensors_of(outputs).values()], 1)


def _difference(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).abs().max() / expected.abs().max())


def _worst_cosine(found: Tensor, expected: Tensor) -> float:
    return float(nn.functional.cosine_similarity(found.flatten(1), expected.flatten(1)).min())


def _earlier(path: Path | None) -> dict[str, Row]:
    """Rows that an earlier run wrote, by name."""
    return {cell["name"]: Row(**cell) for cell in kept(path)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", nargs="+", default=list(INSTANCES), metavar="NAME", help="those whose names begin so")
    parser.add_argument("--iterations", type=int, default=40, help="of learning, a block")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--out", type=Path, help="a file of JSON lines, each row as it is done; rows in it are not run again"
    )
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    rows, earlier = [], _earlier(args.out)
    print(HEADER)
    for name in [name for name in INSTANCES if name.startswith(tuple(args.rows))]:
        rows.append(earlier.get(name) or measured(name, INSTANCES[name], args.iterations, args.seed))
        print(rows[-1].line(), flush=True)
        if name not in earlier:
            keep(args.out, asdict(rows[-1]))
    told = {"rows": len(rows), "failed": sum(bool(row.failed) for row in rows)}
    print(json.dumps({**told, "reach everything": sum(not row.problems() for row in rows)}))


if __name__ == "__main__":
    main()
