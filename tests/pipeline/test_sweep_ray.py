"""Sweeps on a Ray cluster of two nodes on this machine, with a worker and then the driver killed in the middle."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fimaq_deploy import UserError
from fimaq_deploy.cli import main
from fimaq_deploy.pipeline.sweep_plan import Plan
from fimaq_deploy.pipeline.sweep_ray import Store, address_of, build_cell, order, ordered, unpack
from fimaq_deploy.pipeline.sweeps import sweep
from fimaq_deploy.report.sweep_page.records import Sweep, leaderboard

ray = pytest.importorskip("ray")

MIB = 2**20
PLAN = """
models: [vit_digits, swin_digits]
recipes: [w8a8, {recipe: w8a8, name: bad, set: [weights.bits=6, weights.block_size=64]}, w4a8]
targets: [onnxruntime-cpu]
retries: 2
set: [reconstruction.iterations=2, reconstruction.images=32, tuning.iterations=0]
"""


@pytest.fixture
def plan(tmp_path: Path) -> Path:
    path = tmp_path / "trial.yaml"
    path.write_text(PLAN, encoding="utf-8")
    return path


def table(found: Sweep) -> set[tuple[object, ...]]:
    """Everything of the leaderboard that is no time."""
    return {(p.cell.name, p.line.title, p.line.top1, p.line.drop, p.line.size_bytes) for p in leaderboard(found)}


@pytest.mark.parametrize("on", ["slurm", "ray:/host", "ray://"])
def test_another_cluster_is_refused(on: str) -> None:
    with pytest.raises(UserError, match="expected ray, or ray://HOST:PORT"):
        address_of(on)
    assert (address_of("ray"), address_of("ray://head:10001")) == (None, "ray://head:10001")


def test_a_url_is_for_clusters(plan: Path) -> None:
    with pytest.raises(UserError, match="a URL is for sweeps on a cluster"):
        sweep(plan, out="s3://bucket/sweep")


def test_where_a_cell_is_built_is_no_part_of_what_it_is(plan: Path) -> None:
    first = Plan.load(plan).cells()[0]
    plan.write_text(PLAN.replace("vit_digits,", "{name: vit_digits, cpus: 3, gpus: 0.5},") + "cpus: 2\n")
    again = Plan.load(plan).cells()[0]
    assert (again.model.cpus, again.model.gpus) == (3, 0.5)
    assert first.identity() == again.identity()


def test_a_budget_goes_with_its_cell(plan: Path, tmp_path: Path) -> None:
    entries = "{recipe: auto, size_budget: 0.2}, {recipe: auto, set: [tuning.iterations=1], speed_budget: 1.5}"
    plan.write_text(PLAN.replace("[w8a8,", f"[{entries},", 1))
    read = Plan.load(plan)
    for cell in read.cells():
        there, again = ordered(json.loads(order(read, cell)))
        assert (again, again.identity()) == (cell, cell.identity())
        if cell.title != "bad":
            assert again.request(there, tmp_path) == cell.request(read, tmp_path)


def test_a_cell_goes_and_comes_back_as_text_and_a_packed_folder(plan: Path, tmp_path: Path) -> None:
    read = Plan.load(plan)
    good, bad = read.cells()[:2]
    text, packed = build_cell(order(read, good), str(tmp_path), None)
    unpack(packed, good.name, tmp_path)
    unpack(packed, good.name, tmp_path)
    assert json.loads(text)["report"] == json.loads((tmp_path / good.name / "report.json").read_text())
    assert {path.name for path in tmp_path.iterdir()} == {"trial.yaml", good.name}
    failed, nothing = build_cell(order(read, bad), str(tmp_path), None)
    assert "6-bit weights in blocks of 64 cannot run" in json.loads(failed)["error"] and nothing == b""


def test_a_packed_folder_that_is_not_whole_is_not_taken(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    (tmp_path / "half").mkdir()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.add(tmp_path / "half", "cell")
    with pytest.raises(UserError, match="not the folder of a build"):
        unpack(buffer.getvalue(), "cell", tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"half"}


def test_a_store_with_a_url_keeps_what_is_published(tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    store = Store(tmp_path / "here", (tmp_path / "there").as_uri())
    (tmp_path / "here" / "sweep.json").write_text("{}")
    assert not store.has("sweep.json")
    store.publish("sweep.json")
    (tmp_path / "here" / "sweep.json").unlink()
    store.fetch("sweep.json")
    assert store.has("sweep.json") and (tmp_path / "here" / "sweep.json").read_text() == "{}"
    with pytest.raises(UserError, match="cannot be used"):
        Store(tmp_path, "nothing-knows-this://x").has("y")


# Ray gives its own processes seconds to start in, which is too short on a busy machine.
PATIENCE = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_agent_register_timeout_ms": "300000",
    "RAY_gcs_server_request_timeout_seconds": "300",
    "RAY_health_check_initial_delay_ms": "60000",
    "RAY_health_check_timeout_ms": "60000",
    "RAY_raylet_start_wait_time_s": "300",
    "RAY_worker_register_timeout_seconds": "300",
}


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Two nodes of one CPU each; its address."""
    for name, value in PATIENCE.items():
        monkeypatch.setenv(name, value)
    from ray.cluster_utils import Cluster

    own = {"num_cpus": 1, "object_store_memory": 100 * MIB}
    found = Cluster(initialize_head=True, head_node_args={**own, "include_dashboard": False})
    found.add_node(**own)
    yield found.address
    found.shutdown()


@pytest.fixture
def driver(plan: Path, cluster: str) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts the sweep of the plan on the cluster; what a failed test leaves is ended."""
    environment = {**os.environ, "RAY_ADDRESS": cluster, "PYTHONPATH": str(Path(__file__).parents[2])}
    words = [sys.executable, "-m", "fimaq_deploy", "sweep", str(plan), "--on", "ray"]
    started = []

    def start(*more: str) -> subprocess.Popen[str]:
        made = subprocess.Popen([*words, *more], env=environment, cwd=plan.parent, text=True, stderr=subprocess.PIPE)
        started.append(made)
        return made

    yield start
    for one in started:
        one.kill()


def workers(directory: Path) -> list[int]:
    """Processes that build a cell for a driver that was started in a directory."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            title, where = (process / "cmdline").read_bytes(), (process / "cwd").resolve()
        except OSError:
            continue
        if title.startswith(b"ray::build_cell") and where == directory.resolve():
            found.append(int(process.name))
    return found


def wait_for(what: object, seconds: float = 240) -> None:
    until = time.monotonic() + seconds
    while not what():  # type: ignore[operator]
        assert time.monotonic() < until
        time.sleep(0.2)


def done(out: Path) -> list[str]:
    try:
        found = Sweep.model_validate_json((out / "sweep.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []
    return [cell.name for cell in found.cells if cell.state == "done"]


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc").is_dir(), reason="workers are found in /proc")
def test_a_worker_and_then_the_driver_killed_give_the_same_table(
    plan: Path, tmp_path: Path, driver: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    whole = sweep(plan, out=tmp_path / "whole")
    out = tmp_path / "out"
    first = driver("--out", str(out))
    wait_for(lambda: len(workers(tmp_path)) >= 1)
    os.kill(workers(tmp_path)[0], signal.SIGKILL)
    wait_for(lambda: len(done(out)) >= 1)
    assert first.poll() is None, "it is in the middle"
    first.kill()
    first.communicate()
    kept = done(out)
    assert 1 <= len(kept) < 4
    times = {name: (out / name / "manifest.json").stat().st_mtime_ns for name in kept}
    again = driver("--out", str(out))
    _, said = again.communicate(timeout=400)
    assert again.returncode == 1, said
    found = Sweep.model_validate_json((out / "sweep.json").read_text(encoding="utf-8"))
    assert [(cell.name, cell.state) for cell in found.cells] == [(c.name, c.state) for c in whole.sweep.cells]
    assert table(found) == table(whole.sweep) and len(table(found)) == 4
    assert {name: (out / name / "manifest.json").stat().st_mtime_ns for name in kept} == times, "what was there is kept"
    assert {"sweep.html", "sweep.md"} <= {path.name for path in out.iterdir()}
    told = "6-bit weights in blocks of 64"  # a progress line may say it once more
    assert said.count(told) >= 2 and sum(told in (cell.error or "") for cell in found.cells) == 2
    with pytest.raises(SystemExit):
        main(["lint", str(out / "vit_digits-w8a8" / "model.onnx"), "--target", "onnxruntime-cpu"])
    assert "0 errors" in capsys.readouterr().out


@pytest.mark.slow
def test_builds_go_to_a_url(plan: Path, tmp_path: Path, driver: Callable[..., Any]) -> None:
    plan.write_text(PLAN.replace(", swin_digits", "").replace(", w4a8", ""), encoding="utf-8")
    url = (tmp_path / "bucket").as_uri()
    first = driver("--out", url)
    _, said = first.communicate(timeout=400)
    assert first.returncode == 1, said
    names = {path.name for path in (tmp_path / "bucket").iterdir()}
    assert names == {"sweep.json", "sweep.html", "sweep.md", "vit_digits-w8a8"}
    assert (tmp_path / "bucket" / "vit_digits-w8a8" / "manifest.json").is_file()
    assert not (tmp_path / "build" / "trial" / "vit_digits-w8a8").exists(), "it went there and nowhere else"
