"""SHA-256 of every file that the shipped models are exported to, in every preset: a change of the code that should not
change what is exported proves it here.

    python tests/reference/export_digests.py              compare with export_digests.json; exit code 1 if one differs
    python tests/reference/export_digests.py --rewrite    accept what this tree writes
    python tests/reference/export_digests.py --constraints   the reference's versions, for pip

A file has two digests. `graph` covers operators, attributes, names, shapes and types and is the same on every machine.
`bytes` covers the numbers too; float arithmetic rounds differently from one processor or torch to the next, so it is
judged only where the machine and the versions are those of the reference. The producer's version and
`metadata_props` of the model, its nodes and values, which no runtime computes with, are left out of both.

Learning runs for a few iterations on generated noise: what is proved is that numbers stay, not that they are good.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import platform
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

REFERENCE = Path(__file__).with_suffix(".json")
MODELS = ("swin_shapes", "vit_shapes", "swin_digits", "vit_digits")  # the longest first
TARGETS = ("onnxruntime-cpu", "openvino-cpu", "tensorrt-rtx")
PACKAGES = ("torch", "timm", "onnx", "onnx-ir", "onnxscript", "numpy")
IMAGES = 32
SETTINGS = (
    f"reconstruction.images={IMAGES}",
    "reconstruction.iterations=4",
    f"reconstruction.fisher_images={IMAGES}",
    f"scale_search.images={IMAGES}",
    "tuning.iterations=2",
)

Digests = dict[str, dict[str, str]]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rewrite", action="store_true")
    parser.add_argument("--constraints", action="store_true")
    parser.add_argument("--models", nargs="+", default=MODELS)
    parser.add_argument("--output", type=Path, default=REFERENCE)
    arguments = parser.parse_args()
    if arguments.constraints:
        print("\n".join(constraints(json.loads(arguments.output.read_text(encoding="utf-8")))))
        return 0
    found = digests(arguments.models)
    if arguments.rewrite:
        document = {"environment": environment(), "files": dict(sorted(found.items()))}
        arguments.output.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
        print(f"wrote {len(found)} digests to {arguments.output}")
        return 0
    differences = compare(json.loads(arguments.output.read_text(encoding="utf-8")), found)
    print("\n".join(differences) or f"{len(found)} files equal")
    return bool(differences)


def compare(reference: dict[str, Any], found: Digests) -> list[str]:
    """What differs, as sentences."""
    kinds = ("graph", "bytes") if reference["environment"] == environment() else ("graph",)
    if len(kinds) == 1:
        print(f"other machine or versions than {reference['environment']}: numbers are not judged", file=sys.stderr)
    missing = [f"{name}: no reference, run with --rewrite" for name in found if name not in reference["files"]]
    return missing + [
        f"{name}: {kind} differs"
        for name, own in found.items()
        for kind in kinds
        if name in reference["files"] and reference["files"][name].get(kind) != own.get(kind)
    ]


def constraints(reference: dict[str, Any]) -> list[str]:
    """The versions that a reference was made with, as pip takes them."""
    return [f"{name}=={reference['environment'][name]}" for name in PACKAGES]


def environment() -> dict[str, str]:
    """What numbers depend on."""
    import torch

    return {
        "machine": platform.machine(),
        "cpu": torch.backends.cpu.get_cpu_capability(),
        **{name: version(name) for name in PACKAGES},
    }


def digests(models: Iterator[str] | tuple[str, ...] | list[str]) -> Digests:
    """Every file of some models by MODEL/PRESET/TARGETS/FILE."""
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        return {name: own for part in pool.map(_of_model, models) for name, own in part.items()}


def _of_model(name: str) -> Digests:
    import torch

    import fimaq_deploy as fd

    torch.set_num_threads(1)
    model = fd.load_model(name)
    images = _noise(model)
    with TemporaryDirectory() as folder:
        return {
            f"{name}/{preset}/{'+'.join(targets)}/{file.name}": digest(file)
            for preset in fd.Recipe.presets()
            for targets in _targets_of(preset)
            for file in _exported(model, images, preset, targets, Path(folder))
        }


def _targets_of(preset: str) -> Iterator[tuple[str, ...]]:
    """All together and one by one; of floats of 8 bits only those that have kernels for them."""
    import fimaq_deploy as fd

    recipe = fd.Recipe.load(preset)
    integers = recipe.format == "int" and recipe.attention.format != "fp8"
    yield from ((TARGETS, *((target,) for target in TARGETS)) if integers else (("tensorrt-rtx",),))


def _noise(model: Any) -> Any:
    import torch

    kernels = model.patch_embed.proj.weight
    height, width = model.patch_embed.img_size
    return torch.rand(IMAGES, kernels.shape[1], height, width, generator=torch.Generator().manual_seed(0)) * 2 - 1


def _exported(model: Any, images: Any, preset: str, targets: tuple[str, ...], folder: Path) -> Iterator[Path]:
    import fimaq_deploy as fd

    quantized = fd.quantize(model, images, fd.Recipe.load(preset).with_settings(SETTINGS), targets)
    saved = folder / "quantized.safetensors"
    quantized.save(saved)
    yield saved
    for target in targets:
        yield fd.export_onnx(quantized, folder / f"model.{target}.onnx", target=target)


def _described(graph: Any) -> Iterator[Any]:
    """What an exporter notes the names of its own tracing at."""
    for group in (graph.node, graph.initializer, graph.input, graph.output, graph.value_info):
        yield from group


def digest(file: Path) -> dict[str, str]:
    if file.suffix == ".safetensors":
        return {"bytes": _of_tensors(file)}
    import onnx

    model = onnx.load(file)
    model.producer_version = ""
    for one in (model, model.graph, *_described(model.graph)):
        del one.metadata_props[:]
    whole = _sha256(model.SerializeToString(deterministic=True))
    for tensor in model.graph.initializer:
        tensor.ClearField("raw_data")
    for node in model.graph.node:
        for attribute in node.attribute:
            attribute.t.ClearField("raw_data")
    return {"graph": _sha256(model.SerializeToString(deterministic=True)), "bytes": whole}


def _of_tensors(file: Path) -> str:
    """Without the metadata, which may grow."""
    import torch
    from safetensors.torch import load_file

    digest = hashlib.sha256()
    for name, tensor in sorted(load_file(file).items()):
        few = tensor.is_floating_point() and tensor.itemsize == 1  # which NumPy does not have
        array = (tensor.view(torch.uint8) if few else tensor).numpy()
        digest.update(f"{name} {str(tensor.dtype).removeprefix('torch.')} {array.shape}".encode() + array.tobytes())
    return digest.hexdigest()


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


if __name__ == "__main__":
    sys.exit(main())
