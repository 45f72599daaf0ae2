"""The cells of a sweep as tasks of a Ray cluster (extra `ray`): one a task, with the CPUs and GPUs that it names.

A task builds in a folder of its own machine. What it has built comes back through Ray, or goes to a URL that fsspec
knows. A task whose process or machine ends is started again, a few times; one that fails is told, and the others go on.
Tasks end with the process that started them: the same command then goes on with what is not there yet.

What crosses between machines is text and packed files. Paths in the sweep's file have to lead to the same files on
every machine.
"""

from __future__ import annotations

import io
import json
import logging
import os
import shutil
import tarfile
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fimaq_deploy.errors import UserError
from fimaq_deploy.manifest import check_folder
from fimaq_deploy.pipeline.builds import run_request
from fimaq_deploy.pipeline.sweep_plan import Asked, Cell, ModelEntry, Plan
from fimaq_deploy.recipe import Recipe
from fimaq_deploy.report import Report

_SCHEME = "ray"


@dataclass(frozen=True)
class Outcome:
    """What became of a cell. error: why there is no build. trace: of an error that is no user's mistake."""

    report: Report | None = None
    failures: tuple[str, ...] = ()
    seconds: float = 0.0
    error: str | None = None
    trace: str | None = None


def address_of(on: str) -> str | None:
    """The address of a cluster, as Ray takes it; None where Ray finds one by itself, or starts one here.

    on: `ray`, or `ray://HOST:PORT`.

    Raises:
        UserError: it names something else, or Ray is not installed.
    """
    if on != _SCHEME and not (on.startswith(f"{_SCHEME}://") and len(on) > len(f"{_SCHEME}://")):
        raise UserError(f"--on {on}: expected ray, or ray://HOST:PORT of a cluster")
    try:
        import ray  # noqa: F401
    except ImportError:
        raise UserError("--on ray: Ray is not installed: pip install 'fimaq-deploy[ray]'") from None
    return None if on == _SCHEME else on


def build_on_ray(
    address: str | None, plan: Plan, cells: Mapping[int, Cell], folder: Path, url: str | None
) -> Iterator[tuple[int, Outcome]]:
    """Build cells in whatever order they end; the number of each with what became of it.

    folder: where builds go that come back. url: where they go instead.

    Raises:
        UserError: the cluster cannot be reached.
    """
    import ray

    try:
        ray.init(address=address, ignore_reinit_error=True, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, RuntimeError, ValueError, OSError) as error:
        raise UserError(f"--on {address or _SCHEME}: no cluster there: {' '.join(str(error).split())[:200]}") from error
    try:
        started = {_start(plan, cell, url): number for number, cell in cells.items()}
        while started:
            (first,), _ = ray.wait(list(started), num_returns=1)
            number = started.pop(first)
            yield number, _received(first, cells[number], folder, plan)
    finally:
        ray.shutdown()


def _start(plan: Plan, cell: Cell, url: str | None) -> Any:
    import ray

    gpus = cell.model.gpus if cell.model.gpus is not None else plan.gpus
    cpus = cell.model.cpus if cell.model.cpus is not None else plan.cpus
    task: Any = ray.remote(num_cpus=cpus, num_gpus=gpus, max_retries=plan.retries)(build_cell)
    return task.remote(order(plan, cell), str(Path.cwd()), url)


def order(plan: Plan, cell: Cell) -> str:
    """A cell as text."""
    return json.dumps(
        {
            "plan": plan.model_dump(mode="json", by_alias=True),
            "model": cell.model.model_dump(mode="json"),
            "recipe": cell.recipe.model_dump(mode="json"),
            "name": cell.name,
            "title": cell.title,
            "targets": cell.targets,
            "asked": asdict(cell.asked),
        }
    )


def ordered(fields: Mapping[str, Any]) -> tuple[Plan, Cell]:
    """A cell and its plan of what `order` wrote, once it is parsed."""
    model, recipe = ModelEntry.model_validate(fields["model"]), Recipe.model_validate(fields["recipe"])
    told = fields["name"], model, fields["title"], recipe, tuple(fields["targets"]), Asked.of(fields["asked"])
    return Plan.model_validate(fields["plan"]), Cell(*told)


def build_cell(order: str, directory: str, url: str | None) -> tuple[str, bytes]:
    """Build a cell on the machine that this runs on; what became of it as text, and the packed folder.

    directory: to work in, where it is here too. url: where the folder goes; then nothing is packed.
    """
    asked, started = json.loads(order), time.perf_counter()
    if Path(directory).is_dir():
        os.chdir(directory)
    with tempfile.TemporaryDirectory(prefix="fimaq-sweep-") as room:
        try:
            plan, cell = ordered(asked)
            result = run_request(cell.request(plan, Path(room)))
            assert result is not None, "only a helper of torchrun gets none"
            packed = _delivered(result.out, url)
        except UserError as error:
            return json.dumps({"error": str(error)}), b""
        except Exception as error:
            told = f"{type(error).__name__}: {' '.join(str(error).split())}"
            return json.dumps({"error": told, "trace": "".join(traceback.format_exception(error))}), b""
        facts = {"failures": result.failures, "seconds": time.perf_counter() - started}
        return json.dumps({"report": json.loads(result.report.to_json()), **facts}), packed


def _delivered(build: Path, url: str | None) -> bytes:
    """Put a build where it goes, or pack it."""
    if url is not None:
        import fsspec

        system, path = fsspec.core.url_to_fs(url)
        system.makedirs(path, exist_ok=True)
        target = f"{path}/{build.name}"
        if system.exists(target):
            system.rm(target, recursive=True)
        # The manifest comes last: a build without one is not whole.
        for file in sorted(build.iterdir(), key=lambda one: one.name == "manifest.json"):
            system.makedirs(target, exist_ok=True)
            system.put_file(str(file), f"{target}/{file.name}")
        return b""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.add(build, build.name)
    return buffer.getvalue()


def _received(reference: Any, cell: Cell, folder: Path, plan: Plan) -> Outcome:
    import ray

    try:
        text, packed = ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        last = str(error).strip().splitlines()[-1].strip()
        return Outcome(error=f"the task did not start ({last}): every machine needs the same version of fimaq-deploy")
    except ray.exceptions.RayError as error:
        kind, tries = type(error).__name__, plan.retries + 1
        return Outcome(error=f"the process or machine that built it ended ({kind}), {tries} times")
    found = json.loads(text)
    if "error" in found:
        return Outcome(error=found["error"], trace=found.get("trace"))
    if packed:
        unpack(packed, cell.name, folder)
    report = Report.model_validate(found["report"])
    return Outcome(report, tuple(found["failures"]), found["seconds"])


def unpack(packed: bytes, name: str, folder: Path) -> None:
    """A packed build as a folder of its name, whole or not at all. One of that name is replaced."""
    with tempfile.TemporaryDirectory(prefix=f".{name}.", dir=folder) as room:
        with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
            archive.extractall(room, filter="data")
        check_folder(Path(room) / name)
        if (folder / name).exists():
            shutil.rmtree(folder / name)
        (Path(room) / name).rename(folder / name)


@dataclass(frozen=True)
class Store:
    """Where a sweep's builds and pages are: its folder, and a URL where there is one."""

    folder: Path
    url: str | None = None

    def has(self, name: str) -> bool:
        """Whether a file is there; `name` is relative."""
        return self._asked(lambda system, path: bool(system.exists(f"{path}/{name}")), (self.folder / name).is_file())

    def fetch(self, name: str) -> None:
        """Bring a file of the URL into the folder, where it is not there yet."""

        def bring(system: Any, path: str) -> None:
            if not (self.folder / name).exists() and system.exists(f"{path}/{name}"):
                system.get_file(f"{path}/{name}", str(self.folder / name))

        self._asked(bring, None)

    def publish(self, name: str) -> None:
        """Bring a file of the folder to the URL."""

        def bring(system: Any, path: str) -> None:
            system.makedirs(path, exist_ok=True)
            system.put_file(str(self.folder / name), f"{path}/{name}")

        self._asked(bring, None)

    def _asked(self, ask: Callable[[Any, str], Any], otherwise: Any) -> Any:
        if self.url is None:
            return otherwise
        import fsspec

        try:
            return ask(*fsspec.core.url_to_fs(self.url))
        except (ImportError, ValueError, OSError) as error:
            raise UserError(f"--out {self.url} cannot be used: {' '.join(str(error).split())[:200]}") from error
