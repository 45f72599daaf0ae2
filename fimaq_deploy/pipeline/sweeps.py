"""Many builds from one file: models × recipes × targets, each in its own folder, and one page about all of them.

A cell that fails is written down and the next one goes on. Whatever a sweep was stopped by, running it again goes on
where it stopped: finished cells are kept, a cell that was under way goes on with its next block, and failed ones are
tried again. A cell whose settings have changed since is built anew.
"""

from __future__ import annotations

import json
import os
import shlex
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from fimaq_deploy.calibration.parallel import started_by_torchrun
from fimaq_deploy.engines.machine import describe_environment
from fimaq_deploy.engines.runtimes import runtime_packages
from fimaq_deploy.errors import Stopped, UserError, shown
from fimaq_deploy.files import locked, write_whole
from fimaq_deploy.files.whole import make_folder
from fimaq_deploy.manifest import MANIFEST
from fimaq_deploy.models.bundled import SHIPPED
from fimaq_deploy.pipeline.builds import run_request
from fimaq_deploy.pipeline.candidates import Originals
from fimaq_deploy.pipeline.request import Request
from fimaq_deploy.pipeline.steps import Progress, silent
from fimaq_deploy.pipeline.sweep_plan import Cell, Plan
from fimaq_deploy.pipeline.sweep_ray import Outcome, Store, address_of, build_on_ray
from fimaq_deploy.report.page.markdown import page_markdown
from fimaq_deploy.report.sweep_page import page as sweep_page
from fimaq_deploy.report.sweep_page.records import Cell as Record
from fimaq_deploy.report.sweep_page.records import Sweep, finished_cell

SWEEP = "sweep.json"
_LOCK = ".sweep.lock"


@dataclass(frozen=True)
class SweepResult:
    """A sweep that has come to its end. out: the folder with the page and the cells."""

    out: Path
    sweep: Sweep

    def document(self) -> dict[str, Any]:
        """For programs: what `sweep.json` holds."""
        return json.loads(self.sweep.to_json())


def sweep(
    path: str | Path, *, out: str | Path | None = None, on: str | None = None, progress: Progress | None = None
) -> SweepResult:
    """Build every cell of a file that is not built yet, and write sweep.json, sweep.html and sweep.md.

    out: the folder; default: what the file says. With `on` also a URL that fsspec knows, and the pages are in
        build/NAME-OF-THE-FILE too.
    on: `ray` or `ray://HOST:PORT` builds on a cluster, several cells at a time; default: here, one after the other.
    progress: called with the cell as its step.

    Raises:
        UserError: the file is not the plan of a sweep, the folder belongs to something else, or there is no cluster.
    """
    if started_by_torchrun():
        raise UserError("a sweep runs in one process: start it without torchrun")
    plan = Plan.load(path)
    address = None if on is None else address_of(on)
    store = _store(str(out or plan.out or "build"), Path(path).stem, on)
    folder = store.folder
    cells = plan.cells()
    # The devices of a cluster are elsewhere.
    requests = [
        cell.request(plan if on is None else plan.model_copy(update={"device": None}), folder) for cell in cells
    ]
    shared = _shared(plan)
    options = {"--out": out, "--on": on}
    command = ["fimaq-deploy", "sweep", str(path)]
    command += [word for option, value in options.items() if value for word in (option, str(value))]
    with _alone(folder):
        store.fetch(SWEEP)
        earlier = _earlier(folder)
        found = Sweep(
            name=Path(path).stem,
            created=_now(),
            command=shlex.join(command),
            machine=_machine(),
            cells=[_record(cell, cell.identity(*shared), earlier, store) for cell in cells],
        )
        run = _Sweep(store, cells, requests, found, earlier, progress or silent)
        return SweepResult(folder, run.run(None if on is None else run.on_ray(address, plan)))


def _store(out: str, name: str, on: str | None) -> Store:
    if "://" not in out:
        return Store(Path(out))
    if on is None:
        raise UserError(f"--out {shown(out)}: a URL is for sweeps on a cluster: name a folder, or --on ray")
    return Store(Path("build") / name, out.rstrip("/"))


def _shared(plan: Plan) -> tuple[object, ...]:
    """What every cell has from its plan, beside its own fields."""
    own = plan.seed, plan.device, plan.max_drop, plan.sensitivity, plan.min_agreement, plan.min_cosine
    files = tuple((name, value) for name, value in plan.files().items() if value != Plan.model_fields[name].default)
    return (*own, *files)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """For this process only, and with a line about how to go on when it is stopped.

    Raises:
        UserError: another sweep is at work there, or the folder cannot be made.
        Stopped: for a KeyboardInterrupt.
    """
    lock = folder.absolute() / _LOCK
    with ExitStack() as held:
        try:
            make_folder(lock.parent)
            held.enter_context(
                locked(lock, f"{folder} is being swept by {{owner}}: wait for it, or name another --out")
            )
        except OSError as error:
            reason = os.strerror(error.errno or 0).lower()
            raise UserError(f"cannot write {shown(str(folder))}: {reason}; name another folder with --out") from error
        try:
            yield
        except KeyboardInterrupt as error:
            raise Stopped(f"{folder}: finished builds are kept; go on with the same command") from error


@dataclass
class _Sweep:
    """A sweep under way. `found` is on disk after every cell."""

    store: Store
    cells: list[Cell]
    requests: list[Request]
    found: Sweep
    earlier: dict[str, Record]
    progress: Progress
    originals: dict[str, Originals] = field(default_factory=dict)

    @property
    def folder(self) -> Path:
        return self.store.folder

    def run(self, records: Iterator[Record] | None = None) -> Sweep:
        """records: of cells, as they end; default: one after the other, here."""
        self._save()
        for record in records or self._here():
            self.found = self.found.with_cell(record, _now())
            self._save()
        self._write_page()
        return self.found

    def _here(self) -> Iterator[Record]:
        for number, cell in enumerate(self.cells):
            if self.found.cells[number].state != "done":
                yield self._build(number, cell, self.found.cells[number])

    def on_ray(self, address: str | None, plan: Plan) -> Iterator[Record]:
        """Those that are not done, each as it ends."""
        waiting = {number: cell for number, cell in enumerate(self.cells) if self.found.cells[number].state != "done"}
        if not waiting:
            return
        for ended, (number, one) in enumerate(build_on_ray(address, plan, waiting, self.folder, self.store.url), 1):
            self.progress(f"{ended}/{len(waiting)} {waiting[number].name}", 0, 0, one.error or "built")
            record = self.found.cells[number]
            if one.report is None:
                yield record.model_copy(update={"state": "failed", "error": self._kept(record.name, one)})
            else:
                yield finished_cell(record, one.report, one.failures, one.seconds)

    def _kept(self, name: str, one: Outcome) -> str:
        """The error of a cell; its traceback is kept in a file."""
        if one.trace is None:
            return one.error or ""
        write_whole(self.folder / f"{name}.traceback.txt", one.trace.encode())
        return f"{one.error} (see {name}.traceback.txt)"

    def _build(self, number: int, cell: Cell, record: Record) -> Record:
        """The cell's new record. Only what stops the whole program gets out."""
        started = time.perf_counter()
        known = self.earlier.get(cell.name)
        try:
            result = run_request(
                self.requests[number],
                overwrite=True,
                resume=known is not None and known.identity == record.identity,
                progress=self._step(number, cell),
                originals=self._originals(cell),
            )
        except Exception as error:
            return record.model_copy(update={"state": "failed", "error": self._told(cell, error)})
        assert result is not None, "only a helper of torchrun gets none"
        return finished_cell(record, result.report, result.failures, time.perf_counter() - started)

    def _told(self, cell: Cell, error: Exception) -> str:
        """A user's mistake is its line; anything else is our bug, whose traceback is kept in a file."""
        if isinstance(error, UserError):
            return str(error)
        name = f"{cell.name}.traceback.txt"
        write_whole(self.folder / name, "".join(traceback.format_exception(error)).encode())
        return f"{type(error).__name__}: {' '.join(str(error).split())} (see {name})"

    def _originals(self, cell: Cell) -> Originals:
        """What is known of the cell's model before quantization, on the images that the cell is evaluated on."""
        model = cell.model
        own = model.eval_images is not None or model.name in SHIPPED
        # Without images of its own it is evaluated on the calibration images, whose number is the recipe's.
        key = f"{model.model_dump_json()} {'' if own else cell.recipe.reconstruction.images}"
        return self.originals.setdefault(key, Originals())

    def _step(self, number: int, cell: Cell) -> Progress:
        title = f"{number + 1}/{len(self.cells)} {cell.name}"

        def step(step: str, done: int, total: int, detail: str) -> None:
            count = f" {done}/{total}" if total else ""
            self.progress(title, 0, 0, f"{step}{count} {detail}".strip())

        return step

    def _save(self) -> None:
        write_whole(self.folder / SWEEP, self.found.to_json().encode())
        self.store.publish(SWEEP)

    def _write_page(self) -> None:
        page = sweep_page.sweep_page(self.found)
        texts: dict[str, Callable[[], str]] = {
            "sweep.html": lambda: sweep_page.to_html(page),
            "sweep.md": lambda: page_markdown(page),
        }
        for name, text in texts.items():
            write_whole(self.folder / name, text().encode())
            self.store.publish(name)


def _record(cell: Cell, identity: str, earlier: dict[str, Record], store: Store) -> Record:
    """What an earlier run found, if it was the same cell and its build is still there."""
    known = earlier.get(cell.name)
    if known and known.identity == identity and known.state == "done" and store.has(f"{cell.name}/{MANIFEST}"):
        return known
    return Record(
        name=cell.name,
        model=cell.model.name,
        recipe=cell.title,
        targets=list(cell.targets),
        identity=identity,
        size_budget=cell.asked.size_budget,
        speed_budget=cell.asked.speed_budget,
    )


def _earlier(folder: Path) -> dict[str, Record]:
    """The cells of the sweep that is in the folder already, by name.

    Raises:
        UserError: the folder holds something else.
    """
    file = folder / SWEEP
    if not file.is_file():
        if any(path.name != _LOCK for path in folder.iterdir()):
            raise UserError(f"{folder} exists and is not an earlier sweep: name another folder with --out")
        return {}
    try:
        return {cell.name: cell for cell in Sweep.model_validate(json.loads(file.read_text(encoding="utf-8"))).cells}
    except (OSError, ValueError, RecursionError, ValidationError):
        raise UserError(
            f"{file} is cut off or of another version: remove it to build every cell anew, or name another --out"
        ) from None


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def _machine() -> str:
    machine = describe_environment(runtime_packages())
    return f"{machine.gpu or machine.cpu}, {machine.cores} cores"
