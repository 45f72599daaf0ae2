"""Builds that are killed, interrupted, started twice and starved of disk, and files with one flipped bit.

    python benchmarks/chaos.py --kills 30 --interrupts 10 --pairs 5

Prints one line for each kind of trouble: how often it was tried, how often the command refused with one line, how often
it survived or went on, and how often something was lost: a half or mixed folder, an earlier build gone, another byte
after --resume, a traceback, an exit code that says something else. Ends in one line of JSON. Takes minutes.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from trial import Trial, warm_up

from fimaq_deploy.cli import main as command_line
from fimaq_deploy.engines.load import load_engine
from fimaq_deploy.errors import UserError
from fimaq_deploy.manifest import check_folder
from fimaq_deploy.measure.accuracy import evaluate

EXPORTS = ("model.onnx", "model.fp32.onnx", "quantized.safetensors")
STEPS = ("load", "quantize", "export", "compile", "evaluate", "parity", "latency")
LIMITS = (0, 500, 5_000, 20_000, 40_000, 60_000, 90_000, 120_000)
EVERYWHERE = ("onnxruntime-cpu", "tensorrt-rtx")
Found = Counter[str]


class Chaos:
    """Every kind of trouble, in a folder of its own, beside a build that stands for what is right."""

    def __init__(self, folder: Path, targets: Sequence[str]) -> None:
        warm_up(folder)
        self.folder, self.targets, self.reference = folder, targets, folder / "reference"
        np.save(folder / "images.npy", np.random.default_rng(0).standard_normal((64, 3, 32, 32), dtype=np.float32))
        started = time.perf_counter()
        trial = Trial(self.build(self.reference))
        said = trial.finish()
        if trial.code:
            raise SystemExit(said)
        self.seconds = time.perf_counter() - started
        report = json.loads((self.reference / "report.json").read_text())
        self.step_s = {step["name"]: step["seconds"] for step in report["steps"]}

    def build(self, out: Path, *more: str) -> list[str]:
        words = ["build", "--model", "chaos_model:make", "--images", str(self.folder / "images.npy"), "--out", str(out)]
        words += [word for name in self.targets for word in ("--target", name)]
        words += ["--set", "tuning.iterations=0", "--set", "reconstruction.iterations=10", "--overwrite"]
        return [*words, *more]

    def earlier(self, name: str, place: Path | None = None) -> Path:
        """An earlier build that the next one would replace."""
        out = (place or self.folder) / name
        shutil.rmtree(f"{out}.partial", ignore_errors=True)
        shutil.copytree(self.reference, out, dirs_exist_ok=True)
        return out

    def is_right(self, out: Path) -> bool:
        """Whether a whole build stands there, with the bytes that it should have."""
        try:
            check_folder(out)
        except UserError:
            return False
        return all((out / name).read_bytes() == (self.reference / name).read_bytes() for name in EXPORTS)

    def judged(self, found: Found, trial: Trial, out: Path, code: int, what: str) -> None:
        """Count a trial that has to end in one line, or well, with a right build there in either case."""
        found["tried"] += 1
        clean = trial.code == code and len(trial.last_lines) == 1 and "Traceback" not in trial.said
        right = (clean or trial.code == 0) and self.is_right(out)
        found["lost" if not right else "refused" if clean else "survived"] += 1
        found["can be resumed"] += clean and "--resume" in trial.said
        if not right:
            print(f"  {what}: exit {trial.code}: {trial.said[-400:]}", file=sys.stderr)

    def kills(self, count: int) -> Found:
        """SIGKILL at random moments, each followed by --resume. What stands at the end has to be the same bytes."""
        found, out, killed = Found(), self.folder / "killed", 0
        while killed < count or not out.exists():
            trial = Trial(self.build(out, "--resume"))
            if not trial.ended_within(random.uniform(0, self.seconds) if killed < count else 600):
                trial.signal(signal.SIGKILL)
                killed += 1
            trial.finish()
            if trial.code == -signal.SIGKILL:
                found["tried"] += 1
                found["lost" if out.exists() and not self.is_right(out) else "survived"] += 1
                continue
            right = trial.code == 0 and self.is_right(out)
            found["finished with equal bytes" if right else "lost"] += 1
            if not right:
                print(f"  resumed: exit {trial.code}: {trial.said[-400:]}", file=sys.stderr)
            if killed < count:
                shutil.rmtree(out, ignore_errors=True)
        return found

    def interrupts(self, count: int) -> Found:
        """SIGINT in every step, as often as asked, of a build that would replace an earlier one."""
        found: Found = Found()
        for step in STEPS * count:
            for _ in range(20):  # a signal may come too late for a short step
                if self._interrupted(found, step):
                    break
            print(f"  interrupts so far: {dict(found)}", file=sys.stderr, flush=True)
        return found

    def _interrupted(self, found: Found, step: str) -> bool:
        """Whether it was in that step that the signal came."""
        out = self.earlier("interrupted")
        trial = Trial(self.build(out))
        before = STEPS[STEPS.index(step) - 1] if step != STEPS[0] else ""
        if before:
            trial.wait_for(before)
        late = not trial.ended_within(random.uniform(0.0, 0.8) * self.step_s[step] + (0.02 if not before else 0))
        if late:
            trial.signal(signal.SIGINT)
        trial.finish()
        if trial.code == 0 or trial.steps_done != STEPS.index(step):
            found["in another step"] += 1
            return False
        self.judged(found, trial, out, 130, f"interrupt in {step}")
        found[step] += 1
        return True

    def pairs(self, count: int) -> Found:
        """Two builds of one folder at the same time."""
        found = Found()
        for number in range(count):
            out = self.folder / f"pair{number}"
            both = [Trial(self.build(out)) for _ in range(2)]
            said = [trial.finish() for trial in both]
            refusals = [text for text in said if "is being built by process" in text]
            found["tried"] += 1
            found["refused"] += len(refusals)
            right = sorted(trial.code for trial in both) == [0, 2] and len(refusals) == 1 and self.is_right(out)
            found["survived" if right else "lost"] += 1
        return found

    def disks(self, rounds: int) -> Found:
        """A small disk that is full from the beginning of each step on; not but as root, who may mount one."""
        found = Found()
        with small_disk(self.folder / "disk") as disk:
            for step in (step for _ in range(rounds if disk else 0) for step in STEPS):
                assert disk
                out = self.earlier("full", disk)
                trial = Trial(self.build(out), lambda disk=disk: os.environ.update(TMPDIR=str(disk)))
                if step != STEPS[0]:
                    trial.wait_for(STEPS[STEPS.index(step) - 1])
                fill(disk / "filler")
                trial.finish()
                self.judged(found, trial, out, 2, f"disk full from {step} on")
                (disk / "filler").unlink()
        return found

    def limits(self, rounds: int) -> Found:
        """No file may be larger than a limit, from none at all to some of a build's."""
        found = Found()
        for limit in (limit for _ in range(rounds) for limit in LIMITS):
            out = self.earlier("limited")
            trial = Trial(
                self.build(out), lambda limit=limit: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
            )
            trial.finish()
            self.judged(found, trial, out, 2, f"files of {limit} bytes at most")
        return found

    def flips(self, rounds: int) -> Found:
        """One flipped bit in each file against everything that reads a build."""
        found = Found()
        names = sorted(path.name for path in self.reference.iterdir())
        for name in (name for _ in range(rounds) for name in names):
            out = self.earlier("flipped")
            content = bytearray((out / name).read_bytes())
            content[random.randrange(len(content))] ^= 1 << random.randrange(8)
            (out / name).write_bytes(content)
            for label, (reads, run) in readers(out).items():
                code, said = ran(run)
                one_line = len([line for line in said.splitlines() if line.startswith(("error: ", "failed: "))]) >= 1
                refused = code == (1 if label == "verify" else 2) and one_line and "Traceback" not in said
                found["tried"] += 1
                outcome = "refused" if refused else "survived" if name not in reads and code in (0, 1) else "lost"
                found[outcome] += 1
                if outcome == "lost":
                    print(f"  {name} against {label}: exit {code}: {said[-300:]}", file=sys.stderr)
        return found


def readers(built: Path) -> dict[str, tuple[set[str], Callable[[], None]]]:
    """Everything that reads a build: which of its files, and how it is called."""
    onnx, fp32, graph = str(built / "model.onnx"), str(built / "model.fp32.onnx"), {"model.onnx", "manifest.json"}
    everything = {path.name for path in built.iterdir()}
    images = np.zeros((2, 3, 32, 32), np.float32)

    def command(*words: str) -> Callable[[], None]:
        return lambda: command_line(list(words))

    return {
        "load_engine": (graph, lambda: load_engine(onnx) and None),
        "evaluate": (graph, lambda: evaluate(load_engine(onnx), images, np.zeros(2, np.int64)) and None),
        "bench": (
            graph | {"model.fp32.onnx"},
            command("bench", onnx, "--against", fp32, "--rounds", "1", "--seconds", "0.01", "--batch", "1"),
        ),
        "lint": (graph, command("lint", onnx, "--target", "onnxruntime-cpu")),
        "audit": (graph, command("audit", onnx, "--target", "tensorrt-rtx", "--sm", "89")),
        "parity": (graph | {"quantized.safetensors"}, command("parity", str(built), "--count", "1")),
        "compare": (
            {"manifest.json", "report.json", "predictions.safetensors"},
            command("compare", str(built), str(built)),
        ),
        "verify": (everything, command("verify", str(built))),
    }


def ran(run: Callable[[], None]) -> tuple[int, str]:
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


@contextmanager
def small_disk(place: Path, size: str = "96m") -> Iterator[Path | None]:
    """A disk of its own in memory, or None where none can be mounted."""
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place)], capture_output=True)
    if mounted.returncode:
        print(f"  no disk could be mounted: {mounted.stderr.decode().strip()}", file=sys.stderr)
        yield None
        return
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


def fill(path: Path) -> None:
    """Write until the disk is full."""
    with suppress(OSError), path.open("wb", buffering=0) as file:
        for size in (2**20, 2**12, 1):
            with suppress(OSError):
                while file.write(bytes(size)) == size:
                    pass


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--interrupts", type=int, default=10, help="In each step.")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=1, help="Of full disks, limits and flipped bits.")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="*", help="Some of: flips pairs limits disks kills interrupts.")
    parser.add_argument("--targets", nargs="*", default=EVERYWHERE)
    asked = parser.parse_args()
    random.seed(asked.seed)
    table: dict[str, Found] = {}
    with TemporaryDirectory(prefix="fimaq-chaos-") as name:
        chaos = Chaos(Path(name), asked.targets)
        print(f"one build takes {chaos.seconds:.1f} s", flush=True)
        # What forks comes before what may start threads in this process.
        trials: dict[str, Callable[[], Found]] = {
            "pairs": lambda: chaos.pairs(asked.pairs),
            "limits": lambda: chaos.limits(asked.rounds),
            "disks": lambda: chaos.disks(asked.rounds),
            "kills": lambda: chaos.kills(asked.kills),
            "interrupts": lambda: chaos.interrupts(asked.interrupts),
            "flips": lambda: chaos.flips(asked.rounds),
        }
        for kind in (kind for kind in trials if not asked.only or kind in asked.only):
            table[kind] = trials[kind]()
            print(f"{kind:<12}{dict(table[kind])}", flush=True)
    print(json.dumps({"schema": "fimaq-deploy/chaos/1", "seconds_of_one_build": round(chaos.seconds, 1), **table}))
    return 1 if any(found["lost"] for found in table.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
