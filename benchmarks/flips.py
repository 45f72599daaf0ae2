"""One flipped byte in each file of a build, against everything that reads one.

Each reader is first called on the build as it is: what it says then is no refusal of a byte. A reader that has to look
at a file must say that it is not what was built; one that has no business with it must go on as before. Anything else
is a byte that survived.
"""

from __future__ import annotations

import io
import random
import re
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from fimaq_deploy.calibration.quantized_model import load_quantized
from fimaq_deploy.cli import main as command_line
from fimaq_deploy.engines.load import load_engine
from fimaq_deploy.errors import UserError
from fimaq_deploy.manifest import read_manifest
from fimaq_deploy.measure.accuracy import evaluate
from fimaq_deploy.models.load import load_model
from fimaq_deploy.packaging.packages import FORMATS

MODEL = "chaos_model:make"
MANIFEST = "manifest.json"
# How a file that is another one is spoken of: by its digest, its size, or because nothing can be read in it.
REFUSAL = re.compile(r"not what its build wrote|cannot be read|no manifest of this version|holds no manifest")
Said = tuple[int, str]


@dataclass(frozen=True)
class Reader:
    """label: as in the table. reads: names of files of a build. run: on a folder; exit code and what was said."""

    label: str
    reads: frozenset[str]
    run: Callable[[Path], Said]


def _loaded(name: str, at: Path) -> object:
    return load_engine(at / name)


def readers(built: Path, images: Path) -> Iterator[Reader]:
    """built: the build as it should be. images: a folder of image files, for what takes them."""
    names = frozenset(path.name for path in built.iterdir())
    engines, graphs = (sorted(name for name in names if name.endswith(end)) for end in (".engine", ".onnx"))

    def reader(label: str, reads: set[str], *words: str) -> Reader:
        return Reader(label, frozenset({MANIFEST, *reads}), lambda at: ran(lambda: command_line(_at(at, words))))

    def call(label: str, reads: set[str], run: Callable[[Path], object]) -> Reader:
        return Reader(label, frozenset({MANIFEST, *reads}), lambda at: ran(lambda: run(at) and None))

    quick = ("--rounds", "1", "--seconds", "0.01", "--batch", "1")
    for name in (*graphs, *engines):
        yield call(f"load_engine {name}", {name}, partial(_loaded, name))
        yield reader(f"bench {name}", {name}, "bench", f"@/{name}", *quick)
    for name in graphs:
        target = "tensorrt-rtx" if "rtx" in name or "fp16" in name else "onnxruntime-cpu"
        yield reader(f"lint {name}", {name}, "lint", f"@/{name}", "--target", target)
        yield reader(f"audit {name}", {name}, "audit", f"@/{name}", "--target", "tensorrt-rtx", "--sm", "89")
        yield reader(f"predict {name}", {name}, "predict", f"@/{name}", str(images), "--target", "onnxruntime-cpu")
    pair = {"model.onnx", "model.fp32.onnx"}
    yield reader("bench --against", pair, "bench", "@/model.onnx", "--against", "@/model.fp32.onnx", *quick)
    both = {"model.tensorrt-rtx.onnx", "model.fp16.onnx"}
    words = ("audit", "@/model.tensorrt-rtx.onnx", "--target", "tensorrt-rtx", "--against", "@/model.fp16.onnx")
    yield reader("audit --against", both, *words)
    data = np.zeros((2, 3, 32, 32), np.float32)
    yield call(
        "evaluate",
        {"model.onnx"},
        lambda at: evaluate(load_engine(at / "model.onnx"), data, labels=np.zeros(2, np.int64)),
    )
    frozen = "quantized.safetensors"
    yield call("load_quantized", {frozen}, lambda at: load_quantized(at / frozen, load_model(MODEL)))
    stages = {frozen, "model.onnx", "model.tensorrt-rtx.onnx"}
    yield reader("parity", stages, "parity", "@", "--count", "1")
    yield reader("parity --target", stages, "parity", "@", "--count", "1", "--target", "onnxruntime-cpu")
    compared = {"report.json", "predictions.safetensors"}
    yield reader("compare, new", compared, "compare", "@", str(built))
    yield reader("compare, baseline", compared, "compare", str(built), "@")
    yield reader("history", {"report.json"}, "history", "@")
    yield reader("predict", {"model.onnx", "report.json"}, "predict", "@", str(images))
    yield reader("verify", set(names), "verify", "@")
    for form in FORMATS:
        yield reader(f"package --format {form}", set(names), "package", "@", "--format", form)
    yield Reader("serve", frozenset({MANIFEST, "model.onnx", "report.json"}), served)
    with_original = frozenset({MANIFEST, "model.onnx", "model.fp32.onnx", "report.json"})
    yield Reader("serve --original", with_original, lambda at: served(at, "--original"))


def _at(folder: Path, words: tuple[str, ...]) -> list[str]:
    return [str(folder) + word[1:] if word.startswith("@") else word for word in words]


def ran(run: Callable[[], object]) -> Said:
    """The exit code, and what was said."""
    said = io.StringIO()
    try:
        with redirect_stderr(said), redirect_stdout(said):
            run()
    except SystemExit as end:
        return int(end.code or 0), said.getvalue()
    except UserError as error:
        return 2, f"error: {error}"
    except Exception as error:
        return -1, f"Traceback: {error!r}"
    return 0, said.getvalue()


def served(folder: Path, *more: str) -> Said:
    """A server in a process of its own: 0 and its address where it began to serve."""
    words = [sys.executable, "-m", "fimaq_deploy", "serve", str(folder), "--port", "0", *more]
    process = subprocess.Popen(words, stderr=subprocess.PIPE, text=True)
    assert process.stderr
    said = ""
    for line in process.stderr:
        said += line
        if line.startswith("http://"):
            process.send_signal(signal.SIGTERM)
            process.communicate()
            return 0, said
    return process.wait(), said


def flipped(path: Path, generator: random.Random) -> None:
    """Turn one bit of a file over, wherever."""
    content = bytearray(path.read_bytes())
    content[generator.randrange(len(content))] ^= 1 << generator.randrange(8)
    path.write_bytes(content)


def matrix(built: Path, images: Path, room: Path, rounds: int, seed: int) -> dict[str, Counter[str]]:
    """By reader: how often it refused, had no business with the file, or let a byte survive."""
    generator, found = random.Random(seed), {}
    for reader in readers(built, images):
        counts = found[reader.label] = Counter[str]()
        control = reader.run(_copy(built, room))
        counts["cannot run here"] += control[0] not in (0, 1)
        if REFUSAL.search(control[1]) or control[0] < 0:
            raise SystemExit(f"{reader.label} refuses a build that is whole: {control[1][-300:]}")
        for name in (path.name for _ in range(rounds) for path in sorted(built.iterdir())):
            at = _copy(built, room)
            flipped(at / name, generator)
            outcome, said = judged(reader, name, reader.run(at), control[0])
            counts["tried"] += 1
            counts[outcome] += 1
            if outcome == "survived":
                print(f"  {name} against {reader.label}: {said[-300:]}", file=sys.stderr)
    return found


def judged(reader: Reader, name: str, seen: Said, control: int) -> tuple[str, str]:
    """refused, not read, or survived."""
    code, said = seen
    lines = [line for line in said.splitlines() if line.startswith(("error: ", "failed: "))]
    # `verify` judges: it says all that it finds, and its verdict is exit code 1.
    refused = code == 1 and bool(lines) if reader.label == "verify" else code == 2 and len(lines) == 1
    if refused and REFUSAL.search(lines[0]) and "Traceback" not in said:
        return "refused", said
    return ("not read" if name not in reader.reads and code in (control, 0, 1) else "survived"), f"exit {code}: {said}"


def _copy(built: Path, room: Path) -> Path:
    """A fresh copy, alone in its folder: what an earlier command left beside it is gone."""
    shutil.rmtree(room, ignore_errors=True)
    return Path(shutil.copytree(built, room / "build"))


def every_bit_of_the_manifest(built: Path, room: Path) -> Counter[str]:
    """Each bit of manifest.json on its own."""
    found, folder = Counter[str](), _copy(built, room)
    content, whole = (folder / MANIFEST).read_bytes(), read_manifest(folder)
    for bit in range(8 * len(content)):
        changed = bytearray(content)
        changed[bit // 8] ^= 1 << bit % 8
        (folder / MANIFEST).write_bytes(changed)
        found["tried"] += 1
        try:
            outcome = "means the same" if read_manifest(folder) == whole else "survived"
        except UserError:
            outcome = "refused"
        found[outcome] += 1
        if outcome == "survived":
            print(f"  bit {bit % 8} of byte {bit // 8} of {MANIFEST}", file=sys.stderr)
    return found
