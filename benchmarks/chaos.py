"""Builds that are killed, interrupted, started twice and starved of disk, and files with one flipped byte.

    python benchmarks/chaos.py --kills 30 --interrupts 2 --pairs 5

Prints one line for each kind of trouble: how often it was tried, how often the command refused with one line, how often
it survived or went on, and how often something was lost: a half or mixed folder, an earlier build gone, another byte
after --resume, a traceback, an exit code that says something else. Ends in one line of JSON. Takes minutes.
"""

from __future__ import annotations

import argparse
import io
import json
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from tempfile import TemporaryDirectory

from fimaq_deploy.cli import main as command_line
from fimaq_deploy.errors import UserError
from fimaq_deploy.manifest import MANIFEST, check_folder

EXPORTS = ("model.onnx", "model.fp32.onnx", "quantized.safetensors")
STEPS = ("load", "quantize", "export", "compile", "evaluate", "parity", "latency")
QUICK = ["--set", "tuning.iterations=0", "--set", "reconstruction.iterations=10", "--set", "reconstruction.images=128"]
LIMITS = (0, 500, 5_000, 20_000, 60_000, 120_000, 250_000, 500_000)


def build(out: Path, *more: str) -> list[str]:
    targets = ("--target", "onnxruntime-cpu") if "--target" not in more else ()
    command = [sys.executable, "-m", "fimaq_deploy", "build", "--model", "vit_digits", "--out", str(out), "--overwrite"]
    return [*command, *QUICK, *targets, *more]


def start(command: Sequence[str], before: Callable[[], None] | None = None) -> subprocess.Popen[str]:
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=pipe, text=True, preexec_fn=before)


def is_whole(out: Path) -> bool:
    try:
        check_folder(out)
    except UserError:
        return False
    return True


def same_exports(out: Path, reference: Path) -> bool:
    return all((out / name).read_bytes() == (reference / name).read_bytes() for name in EXPORTS)


def lines_of(said: str) -> list[str]:
    return [line for line in said.splitlines() if line.startswith(("error: ", "stopped: "))]


def kills(folder: Path, reference: Path, count: int, longest_s: float) -> Counter[str]:
    """SIGKILL at random moments, each followed by --resume. What stands at the end has to be the reference's bytes."""
    found, out, killed = Counter[str](), folder / "killed", 0
    while killed < count or not out.exists():
        process = start(build(out, "--resume"))
        try:
            process.wait(random.uniform(0, longest_s) if killed < count else None)
        except subprocess.TimeoutExpired:
            process.kill()
            killed += 1
            print(f"  kill {killed} of {count}; so far {dict(found)}", file=sys.stderr)
        process.communicate()
        if process.returncode == -signal.SIGKILL:
            found["tried"] += 1
            found["lost"] += out.exists() and not is_whole(out)
            found["survived"] += not out.exists() or is_whole(out)
        elif process.returncode or not is_whole(out) or not same_exports(out, reference):
            found["lost"] += 1
        else:
            found["finished with equal bytes"] += 1
            if killed < count:
                shutil.rmtree(out)
    return found


def interrupts(folder: Path, reference: Path, count: int) -> Counter[str]:
    """SIGINT in every step, of a build that would replace an earlier one."""
    found, out = Counter[str](), folder / "interrupted"
    for number, step in enumerate(STEPS * count):
        shutil.copytree(reference, out, dirs_exist_ok=True)
        process = start(build(out, "--target", "onnxruntime-cpu", "--target", "tensorrt-rtx"))
        said, earlier = "", STEPS[STEPS.index(step) - 1] if step != STEPS[0] else None
        assert process.stderr
        while earlier and (line := process.stderr.readline()):
            said += line
            if line.startswith(earlier):
                break
        time.sleep(random.uniform(0.05, 0.6) if earlier else 4)
        process.send_signal(signal.SIGINT)
        said += process.communicate()[1]
        found["tried"] += 1
        clean = process.returncode == 130 and len(lines_of(said)) == 1 and "Traceback" not in said
        if not clean or not is_whole(out) or not same_exports(out, reference):
            found["lost"] += 1
            print(
                f"  interrupt {number} in {step}: exit {process.returncode}: {said.splitlines()[-1:]}", file=sys.stderr
            )
        else:
            found["refused"] += 1
            found["can be resumed"] += "--resume" in said
        shutil.rmtree(f"{out}.partial", ignore_errors=True)
    return found


def pairs(folder: Path, reference: Path, count: int) -> Counter[str]:
    """Two builds of one folder at the same time."""
    found, out = Counter[str](), folder / "pair"
    for _ in range(count):
        both = [start(build(out)), start(build(out))]
        said = [process.communicate()[1] for process in both]
        codes = sorted(process.returncode for process in both)
        refusals = [text for text in said if "is being built by process" in text]
        found["tried"] += 1
        found["refused"] += len(refusals)
        right = codes == [0, 2] and len(refusals) == 1 and is_whole(out) and same_exports(out, reference)
        found["survived" if right else "lost"] += 1
    return found


def full_disks(folder: Path, reference: Path) -> Counter[str]:
    """No file may be larger than a limit, from none at all to some of a build's, so that each step fails once."""
    found, out = Counter[str](), folder / "full"
    for limit in LIMITS:
        shutil.copytree(reference, out, dirs_exist_ok=True)
        process = start(build(out), lambda limit=limit: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)))
        said = process.communicate()[1]
        found["tried"] += 1
        clean = process.returncode == 2 and len(lines_of(said)) == 1 and "Traceback" not in said
        right = (clean or process.returncode == 0) and is_whole(out) and same_exports(out, reference)
        found["lost" if not right else "refused" if clean else "survived"] += 1
        if not right:
            print(f"  limit {limit}: exit {process.returncode}: {said.splitlines()[-1:]}", file=sys.stderr)
        shutil.rmtree(f"{out}.partial", ignore_errors=True)
    return found


def commands(built: Path) -> dict[str, list[str]]:
    """Every command that reads a build, by the files that it reads."""
    onnx = str(built / "model.onnx")
    return {
        "model.onnx bench": ["bench", onnx, "--rounds", "1", "--seconds", "0.01", "--batch", "1"],
        "model.onnx lint": ["lint", onnx, "--target", "onnxruntime-cpu"],
        "model.onnx audit": ["audit", onnx, "--target", "tensorrt-rtx", "--sm", "89"],
        "model.fp32.onnx bench": ["bench", onnx, "--against", str(built / "model.fp32.onnx"), "--rounds", "1"],
        "model.fp32.onnx lint": ["lint", str(built / "model.fp32.onnx"), "--target", "onnxruntime-cpu"],
        "quantized.safetensors parity": ["parity", str(built), "--count", "1"],
        "model.onnx parity": ["parity", str(built), "--count", "1"],
        "manifest.json parity": ["parity", str(built), "--count", "1"],
        "manifest.json bench": ["bench", onnx, "--rounds", "1"],
        "manifest.json compare": ["compare", str(built), str(built)],
        "report.json compare": ["compare", str(built), str(built)],
        "predictions.safetensors compare": ["compare", str(built), str(built)],
    }


def flips(folder: Path, reference: Path) -> Counter[str]:
    """One flipped bit in the middle of each file against each command that reads it, which has to refuse it."""
    found = Counter[str]()
    built = folder / "flipped"
    for name, arguments in commands(built).items():
        shutil.copytree(reference, built, dirs_exist_ok=True)
        file = built / name.split()[0]
        content = bytearray(file.read_bytes())
        content[len(content) // 2] ^= 1
        file.write_bytes(content)
        found["tried"] += 1
        code, said = ran(arguments)
        refused = code == 2 and len(lines_of(said)) == 1
        found["refused" if refused else "lost"] += 1
        if not refused:
            print(f"  {name}: exit {code}: {said[-200:]}", file=sys.stderr)
    return found


def ran(arguments: Sequence[str]) -> tuple[int, str]:
    said = io.StringIO()
    try:
        with redirect_stderr(said), redirect_stdout(io.StringIO()):
            command_line(arguments)
    except SystemExit as end:
        return int(end.code or 0), said.getvalue()
    return 0, said.getvalue()


@contextmanager
def finished_build() -> Iterator[tuple[Path, float]]:
    """A build to compare with, and how long it took."""
    with TemporaryDirectory(prefix="fimaq-chaos-") as name:
        reference = Path(name) / "reference"
        started = time.perf_counter()
        subprocess.run(build(reference), check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        assert (reference / MANIFEST).is_file()
        yield reference, time.perf_counter() - started


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--interrupts", type=int, default=2, help="In each step.")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="*", help="Some of: kills interrupts pairs disks flips.")
    asked = parser.parse_args()
    random.seed(asked.seed)
    table: dict[str, Counter[str]] = {}
    with finished_build() as (reference, seconds):
        folder = reference.parent
        trials: dict[str, Callable[[], Counter[str]]] = {
            "flips": lambda: flips(folder, reference),
            "pairs": lambda: pairs(folder, reference, asked.pairs),
            "disks": lambda: full_disks(folder, reference),
            "interrupts": lambda: interrupts(folder, reference, asked.interrupts),
            "kills": lambda: kills(folder, reference, asked.kills, seconds),
        }
        for name in asked.only or trials:
            table[name] = trials[name]()
            print(f"{name:<12}{dict(table[name])}", flush=True)
    print(json.dumps({"schema": "fimaq-deploy/chaos/1", "seconds_of_one_build": round(seconds, 1), **table}))
    return 1 if any(found["lost"] for found in table.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
