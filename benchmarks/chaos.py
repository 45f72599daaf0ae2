"""Builds that are killed, interrupted, started twice and starved of disk, and files with one flipped bit.

    python benchmarks/chaos.py --kills 30 --interrupts 10 --pairs 5

Prints a table: how often each kind of trouble was tried, how often the command refused or stopped with one line, how
often it went on, and how often something was lost: a half or mixed folder, an earlier build gone, another byte in any
file that two undisturbed builds have alike, a traceback, an exit code that says something else. Of flipped bits, by
command, see `flips.py`. Ends in one line of JSON. Takes minutes.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from flips import every_bit_of_the_manifest, matrix
from PIL import Image
from trial import Trial, warm_up

from fimaq_deploy.errors import UserError
from fimaq_deploy.manifest import check_folder

STEPS = ("load", "quantize", "export", "compile", "evaluate", "parity", "latency")
LIMITS = (0, 500, 5_000, 20_000, 40_000, 60_000, 90_000, 120_000)
EVERYWHERE = ("onnxruntime-cpu", "tensorrt-rtx")
Found = Counter[str]
# A build goes on after trouble; a byte that is not noticed is lost.
COLUMNS = ("refused", "went on", "not read", "survived", "lost")
BAD = ("survived", "lost")


class Chaos:
    """Every kind of trouble, in a folder of its own, beside a build that stands for what is right."""

    def __init__(self, folder: Path, targets: Sequence[str]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        warm_up(folder)
        self.folder, self.targets, self.reference = folder, targets, folder / "reference"
        np.save(folder / "images.npy", np.random.default_rng(0).standard_normal((64, 3, 32, 32), dtype=np.float32))
        for out in (self.reference, folder / "again"):
            if not out.exists():  # a folder that was kept has them
                self._undisturbed(out)
        # What holds no time of day and no latency: every other file has to have the same bytes.
        self.exact = sorted(
            path.name
            for path in self.reference.iterdir()
            if path.read_bytes() == (folder / "again" / path.name).read_bytes()
        )
        report = json.loads((self.reference / "report.json").read_text())
        self.seconds = sum(step["seconds"] for step in report["steps"])
        self.step_s = {step["name"]: step["seconds"] for step in report["steps"]}

    def _undisturbed(self, out: Path) -> None:
        trial = Trial(self.build(out))
        said = trial.finish()
        if trial.code:
            raise SystemExit(said)

    def build(self, out: Path, *more: str) -> list[str]:
        words = ["build", "--model", "chaos_model:make", "--images", str(self.folder / "images.npy"), "--out", str(out)]
        words += [word for name in self.targets for word in ("--target", name)]
        words += ["--set", "tuning.iterations=0", "--set", "reconstruction.iterations=10", "--overwrite"]
        return [*words, *more]

    def pictures(self) -> Path:
        """A folder of image files."""
        place = self.folder / "pictures"
        place.mkdir(exist_ok=True)
        for number in range(2):
            pixels = np.random.default_rng(number).integers(0, 256, (40, 40, 3), np.uint8)
            Image.fromarray(pixels).save(place / f"{number}.png")
        return place

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
        return all((out / name).read_bytes() == (self.reference / name).read_bytes() for name in self.exact)

    def judged(self, found: Found, trial: Trial, out: Path, code: int, what: str) -> None:
        """Count a trial that has to end in one line, or well, with a right build there in either case."""
        found["tried"] += 1
        clean = trial.code == code and len(trial.last_lines) == 1 and "Traceback" not in trial.said
        right = (clean or trial.code == 0) and self.is_right(out)
        found["lost" if not right else "refused" if clean else "went on"] += 1
        found["can be resumed"] += clean and "--resume" in trial.said
        if not right:
            print(f"  {what}: exit {trial.code}: {trial.said[-400:]}", file=sys.stderr)

    def kills(self, count: int) -> Found:
        """SIGKILL at random moments, each followed by --resume, in turns beside an earlier build and beside none.

        What stands there must always be a whole build, and after --resume the same bytes.
        """
        found, out, beside, killed, finished = Found(), self.folder / "killed", False, 0, True
        while killed < count or not finished:
            if finished:
                shutil.rmtree(out, ignore_errors=True)
                beside = not beside
                _ = self.earlier("killed") if beside else None
            trial = Trial(self.build(out, "--resume"))
            if killed < count and not trial.ended_within(random.uniform(0, self.seconds)):
                trial.signal(signal.SIGKILL)
                killed += 1
            trial.finish()
            finished = trial.code != -signal.SIGKILL
            if finished:
                found["finished with equal bytes" if trial.code == 0 and self.is_right(out) else "lost"] += 1
            else:
                found["tried"] += 1
                whole = self.is_right(out) if out.exists() else not beside
                found["went on" if whole else "lost"] += 1
            if found["lost"]:
                print(f"  killed or resumed: exit {trial.code}: {trial.said[-400:]}", file=sys.stderr)
        return found

    def interrupts(self, count: int, steps: Sequence[str] = STEPS) -> Found:
        """SIGINT in every step, as often as asked, of a build that would replace an earlier one."""
        found: Found = Found()
        for step in (step for _ in range(count) for step in steps):
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
        found[f"in {step}"] += 1
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
            found["went on" if right else "lost"] += 1
        return found

    def disks(self, rounds: int) -> Found:
        """A small disk that is full from the beginning of each step on; not but as root, who may mount one."""
        found = Found()
        with small_disk(self.folder / "disk") as disk:
            for step in (step for _ in range(rounds if disk else 0) for step in STEPS):
                assert disk
                out = self.earlier("full", disk)
                trial = Trial(self.build(out), partial(os.environ.__setitem__, "TMPDIR", str(disk)))
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
            trial = Trial(self.build(out), partial(resource.setrlimit, resource.RLIMIT_FSIZE, (limit, limit)))
            trial.finish()
            self.judged(found, trial, out, 2, f"files of {limit} bytes at most")
        return found


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
    parser.add_argument("--steps", nargs="*", choices=STEPS, default=STEPS, help="Those that are interrupted.")
    parser.add_argument("--folder", type=Path, help="Kept, with its undisturbed builds, for the next run.")
    parser.add_argument("--targets", nargs="*", default=EVERYWHERE)
    asked = parser.parse_args()
    random.seed(asked.seed)
    table: dict[str, Found] = {}
    with TemporaryDirectory(prefix="fimaq-chaos-") as name:
        chaos = Chaos(asked.folder or Path(name), asked.targets)
        print(f"one build takes {chaos.seconds:.1f} s", flush=True)
        # What forks comes before what may start threads in this process.
        trials: dict[str, Callable[[], Found]] = {
            "pairs": lambda: chaos.pairs(asked.pairs),
            "limits": lambda: chaos.limits(asked.rounds),
            "disks": lambda: chaos.disks(asked.rounds),
            "kills": lambda: chaos.kills(asked.kills),
            "interrupts": lambda: chaos.interrupts(asked.interrupts, asked.steps),
        }
        for kind in (kind for kind in trials if not asked.only or kind in asked.only):
            table[kind] = trials[kind]()
            print(f"{kind}: {dict(table[kind])}", file=sys.stderr, flush=True)
        if not asked.only or "flips" in asked.only:
            table["bits of the manifest"] = every_bit_of_the_manifest(chaos.reference, chaos.folder / "room")
            table |= matrix(chaos.reference, chaos.pictures(), chaos.folder / "room", asked.rounds, asked.seed)
    print_table(table)
    told = {"seconds_of_one_build": round(chaos.seconds, 1), "files_compared": chaos.exact}
    print(json.dumps({"schema": "fimaq-deploy/chaos/2", **told, **table}))
    return 1 if any(found[bad] for found in table.values() for bad in BAD) else 0


def print_table(table: dict[str, Found]) -> None:
    """In Markdown; what is no column of its own stands in the last."""
    print(f"| what | tried | {' | '.join(COLUMNS)} | of them |\n| --- |{' ---: |' * (len(COLUMNS) + 1)} --- |")
    for kind, found in table.items():
        rest = ", ".join(
            f"{count} {name}" for name, count in found.items() if name not in ("tried", *COLUMNS) and count
        )
        print(f"| {kind} | {found['tried']} | {' | '.join(str(found[name] or '') for name in COLUMNS)} | {rest} |")


if __name__ == "__main__":
    sys.exit(main())
