"""The registry; and that a target is one file: a toy, which nothing else in the repository knows, goes every way."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
from fixtures.versions import quantizes_float16_exactly
from PIL import Image

import fimaq_deploy
from fimaq_deploy import QuantizedModel, Recipe, UserError, bench, load_engine, parity
from fimaq_deploy.cli import main
from fimaq_deploy.engines.options import OPTIMISATIONS, THREADS
from fimaq_deploy.engines.runtimes import (
    REFERENCE,
    RUNTIMES,
    Runtime,
    find_runtime,
    guess_runtime,
    register,
    runtime_packages,
)
from fimaq_deploy.report import load_report
from fimaq_deploy.target import TARGETS, Kernel, Shapes, Target, add_target, find_target
from fimaq_deploy.target.kernels import Granularity

TESTS = Path(__file__).parents[1]
TOY = "fixtures.toy_runtime"
NAMES = re.compile(r"""["'](?:tensorrt|tensorrt-rtx|onnxruntime-c\w+|openvino-cpu)["']""")
DEFINED = ("runtimes", "onnxruntime", "openvino", "tensorrt", "tensorrt_library")


@pytest.fixture
def toy() -> Iterator[Runtime]:
    """The toy target, known for one test."""
    import_module(TOY)
    yield RUNTIMES["toy"]
    RUNTIMES.pop("toy", None)
    TARGETS.pop("toy")
    sys.modules.pop(TOY)


def run(*arguments: object) -> int:
    with pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    return int(ended.value.code or 0)


def test_every_target_has_a_runtime() -> None:
    assert list(RUNTIMES) == list(TARGETS)
    assert all(runtime.target is TARGETS[name] for name, runtime in RUNTIMES.items())
    assert len({runtime.title for runtime in RUNTIMES.values()}) == len(RUNTIMES)


def test_what_each_reads_of_a_build() -> None:
    files = {name: (runtime.onnx(Path()).name, runtime.file(Path()).name) for name, runtime in RUNTIMES.items()}
    common = ("model.onnx", "model.onnx")
    assert files == {
        "tensorrt": ("model.tensorrt.onnx", "model.tensorrt.engine"),
        "tensorrt-rtx": ("model.tensorrt-rtx.onnx", "model.tensorrt-rtx.engine"),
        "onnxruntime-cpu": common,
        "onnxruntime-cuda": ("model.onnxruntime-cuda.onnx",) * 2,
        "openvino-cpu": common,
    }


def test_what_each_can() -> None:
    facts = {
        name: (one.device, one.has_floor, one.layer_plan, one.as_written, one.takes(THREADS), one.takes(OPTIMISATIONS))
        for name, one in RUNTIMES.items()
    }
    assert facts == {
        "tensorrt": ("gpu", False, True, False, False, False),
        "tensorrt-rtx": ("gpu", False, True, False, False, False),
        "onnxruntime-cpu": ("cpu", True, False, True, True, True),
        "onnxruntime-cuda": ("gpu", False, False, False, True, True),
        "openvino-cpu": ("cpu", True, False, False, True, False),
    }


@pytest.mark.parametrize("runtime", RUNTIMES.values(), ids=lambda runtime: runtime.name)
def test_availability_is_a_reason_or_none(runtime: Runtime) -> None:
    build, ran = runtime.availability()
    assert build is None or "\n" not in build
    assert ran is None or "\n" not in ran
    assert ran or not build, "what cannot be built here cannot be run here"


def test_onnxruntime_on_the_cpu_is_always_there() -> None:
    assert find_runtime(REFERENCE).availability() == (None, None)


def test_packages_are_named_once() -> None:
    packages = runtime_packages()
    assert len(set(packages)) == len(packages)
    assert {"onnxruntime", "openvino", "tensorrt", "tensorrt-rtx", "polygraphy"} <= set(packages)


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("model.onnx", "onnxruntime-cpu"),
        ("model.tensorrt.engine", "tensorrt"),
        ("model.fp16.tensorrt-rtx.engine", "tensorrt-rtx"),
        ("tensorrt.engine", "tensorrt"),
    ],
)
def test_a_files_name_tells_its_runtime(file: str, name: str) -> None:
    assert guess_runtime(Path(file)).name == name


def test_an_engine_without_a_name_is_of_what_is_installed() -> None:
    guessed = guess_runtime(Path("model.engine"))
    able = [one.name for one in RUNTIMES.values() if one.suffix == ".engine" and one.availability()[0] is None]
    assert guessed.name == (able or ["tensorrt"])[0]


def test_what_nothing_reads_is_refused(tmp_path: Path, model_path: Path) -> None:
    with pytest.raises(UserError, match=r"neither a \.onnx nor a \.engine file: name its target, one of tensorrt, "):
        load_engine(tmp_path / "model.pt")
    with pytest.raises(UserError, match="unknown target 'tensort'"):
        load_engine(model_path, "tensort")


@pytest.mark.parametrize(
    ("target", "options", "message"),
    [
        ("onnxruntime-cpu", {"thread": 1}, "unknown option 'thread' of target onnxruntime-cpu; did you mean 'threads'"),
        ("openvino-cpu", {"optimisations": False}, "has no option 'optimisations', which is for onnxruntime-cpu, "),
        ("openvino-cpu", {"cuda_graph": True}, "has no option 'cuda_graph', which is for tensorrt, tensorrt-rtx; it"),
        ("tensorrt-rtx", {"threads": 2}, "which is for onnxruntime-cpu, onnxruntime-cuda, openvino-cpu; it takes cuda"),
        (
            "onnxruntime-cpu",
            {"threads": "two"},
            "option threads='two' of target onnxruntime-cpu: expected a whole numb",
        ),
        (
            "onnxruntime-cpu",
            {"provider": "cuda"},
            "unknown option 'provider' of target onnxruntime-cpu; it takes optim",
        ),
    ],
)
def test_options_that_do_not_fit_are_one_line(
    model_path: Path, target: str, options: dict[str, object], message: str
) -> None:
    with pytest.raises(UserError) as caught:
        load_engine(model_path, target, **options)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_compiles_nothing_says_so(model_path: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="target openvino-cpu compiles nothing: load the ONNX file itself"):
        find_runtime("openvino-cpu").compile(model_path, tmp_path / "model.engine")


def test_a_name_is_registered_once_and_fits_into_a_files_name(toy: Runtime) -> None:
    assert register(toy) is toy
    with pytest.raises(ValueError, match="there is a target toy already"):
        register(replace(toy, title="Another"))
    with pytest.raises(ValueError, match=r"expected a name of small letters, digits and hyphens"):
        register(replace(toy, target=replace(toy.target, name="a/b")))


def test_rules_without_a_runtime_say_so(toy: Runtime) -> None:
    del RUNTIMES["toy"]
    assert find_target("toy") is toy.target
    with pytest.raises(UserError, match="target 'toy' has rules and no runtime: register one"):
        find_runtime("toy")


def test_names_of_targets_are_compared_nowhere() -> None:
    """They stand where targets are defined; elsewhere the registry is asked what a target can."""
    root = Path(fimaq_deploy.__file__).parent
    allowed = {"target/table.py", *(f"engines/{name}.py" for name in DEFINED)}
    files = {path.relative_to(root).as_posix(): path.read_text(encoding="utf-8") for path in root.rglob("*.py")}
    found = {name: NAMES.findall(text) for name, text in files.items() if name not in allowed}
    default = {"calibration/quantization.py": ['"onnxruntime-cpu"']}  # of a public signature
    assert {name: names for name, names in found.items() if names} == default


# --- a toy target ---


def test_the_toy_is_one_file() -> None:
    rooms = (TESTS, Path(fimaq_deploy.__file__).parent)
    files = [path for room in rooms for path in room.rglob("*.py") if "toy_runtime" in path.read_text(encoding="utf-8")]
    assert {path.name for path in files} == {"test_runtimes.py"}


@quantizes_float16_exactly
def test_a_toy_loads_and_takes_its_own_options(toy: Runtime, model_path: Path, batch: np.ndarray) -> None:
    expected = load_engine(model_path, optimisations=False)(batch)
    np.testing.assert_allclose(load_engine(model_path, "toy", doubled=True)(batch), expected, atol=0.1)  # sums in FP16
    with pytest.raises(UserError, match=r"has no option 'threads', which is for onnxruntime-cpu, .*; it takes doubled"):
        load_engine(model_path, "toy", threads=2)


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for label in range(10):
        folder = tmp_path / "pictures" / str(label)
        folder.mkdir(parents=True)
        Image.fromarray(rng.integers(0, 256, (16, 16), np.uint8)).save(folder / "0.png")
    return tmp_path / "pictures"


def test_a_toy_is_built_checked_timed_and_told_of(
    toy: Runtime, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, recipe = tmp_path / "out", ("--set", "reconstruction.iterations=0", "--set", "tuning.iterations=0")
    few = ("--set", "reconstruction.images=8", "--set", "scale_search.candidates=4")
    data = ("--model", "vit_digits", "--eval-images", pictures)
    assert run("build", *data, "--target", "toy", *recipe, *few, "--out", out) == 0
    report = load_report(out)
    assert [status.name for status in report.targets] == ["toy"]
    row = report.row("toy")
    assert row is not None and row.accuracy is not None and row.comparison is not None
    assert (row.title, row.deployed, row.file, row.not_run) == ("Toy", True, "model.onnx", None)
    assert (row.comparison.to, row.comparison.agreement) == ("onnx-reference", 100.0)
    assert row.latency[0].ratio_to == "onnx-fp32" and row.latency[0].floor_ms is not None
    assert row.peak_memory_bytes is None or row.peak_memory_bytes > 10**7
    compared = {pair.to: pair for pair in report.parity}
    assert list(compared) == ["onnx-reference", "onnxruntime-cpu", "toy"]
    assert all((stage.largest_step or 0) <= 1 for stage in compared["toy"].stages)
    assert "Toy" in capsys.readouterr().out

    found = parity(out, count=2)
    assert [(each.to, each.report.as_written) for each in found.comparisons][-1] == ("toy", True)
    assert found.partings == []

    rows = bench([out / "model.onnx"], targets=["toy"], against=out / "model.fp32.onnx", batch_sizes=[1], rounds=3)
    assert [row.target for row in rows] == [REFERENCE, "toy"]
    assert rows[1].floor is not None and rows[1].peak_memory_bytes is not None

    assert run("lint", out / "model.onnx", "--target", "toy", "--json", "-") == 0
    assert json.loads(capsys.readouterr().out)["target"] == "toy"
    assert run("audit", out / "model.onnx", "--target", "toy") == 2
    assert "target toy has no layer plan to audit: expected tensorrt or tensorrt-rtx" in capsys.readouterr().err
    assert run("doctor") == 0
    assert re.search(r"^toy +builds and runs$", capsys.readouterr().out, re.M)


def test_a_table_alone_places_writes_lints_and_refuses(tmp_path: Path) -> None:
    """Entries that no target here has: nothing else has to know them."""
    from fimaq_deploy import export_onnx, lint, load_model, quantize
    from fimaq_deploy.data.bundled import bundled_images

    layers = frozenset[Granularity]({"channel"}), frozenset[Granularity]({"tensor", "floats"})
    table = (
        Kernel("int", "layer", *layers, least_size=16, convolution=False),
        Kernel("int", "attention", shapes=Shapes(frozenset({16}), most_tokens=8)),
        Kernel("int4", "layer", frozenset({32}), frozenset({"floats"}), since=(9, 0), convolution=False),
    )
    mine = Target("mine", "float32", table)
    few = {"scale_search": {"images": 4, "candidates": 1}, "reconstruction": {"images": 4, "iterations": 0}}
    model, images = load_model("vit_digits"), bundled_images("digits", "calibration", 4)

    def made(preset: str, *settings: str, sm: int | None = None) -> QuantizedModel:
        recipe = Recipe.load(preset).replace(**few, tuning={"iterations": 0}).with_settings(settings)
        return quantize(model, images, recipe, "mine", sm=sm)

    add_target(mine)
    try:
        plain = made("w8a8")
        assert plain.left_alone["head"].endswith("below 16 integers gain nothing")
        assert plain.left_alone["blocks.0.attn"] == "17 tokens are more than 8"
        blocks = made("w4a16", "weights.block_size=32", "head.quantize=never")
        written = export_onnx(blocks, tmp_path / "blocks.onnx", target="mine")
        assert [one for one in lint(written, "mine") if one.severity == "error"] == []
        assert {one.rule for one in lint(written, "tensorrt") if "blocks of 32" in one.problem} == {"int4-layout"}
        for preset, settings, sm, said in (
            ("fp8", (), None, r"FP8 products.* cannot run on target mine: it executes INT8 products"),
            ("w4a16", (), None, "blocks of 64 cannot run on target mine: it executes 4 bits in blocks of 32"),
            ("w4a16", ("weights.block_size=32",), 89, "8.9: it needs 9.0 or newer, and 8.9 executes INT8 products"),
            (
                "w8a8",
                ("activations.scheme=asymmetric",),
                None,
                "asymmetric 8-bit activations cannot run on target mine",
            ),
            ("w8a8", ("attention.format=fp8",), None, "FP8 attention cannot run on target mine"),
        ):
            with pytest.raises(UserError, match=said):
                made(preset, *settings, sm=sm)
    finally:
        TARGETS.pop("mine")


def test_a_toy_serves_beside_other_targets(toy: Runtime) -> None:
    from fimaq_deploy import load_model, quantize
    from fimaq_deploy.data.bundled import bundled_images

    few = {"scale_search": {"images": 8, "candidates": 4}, "reconstruction": {"images": 8, "iterations": 0}}
    recipe = Recipe.load("w8a8").replace(**few, tuning={"iterations": 0})
    images = bundled_images("digits", "calibration", 8)
    assert quantize(load_model("vit_digits"), images, recipe, [REFERENCE, "toy"]).target.name == "onnxruntime-cpu+toy"


def installed(folder: Path, entry: str) -> dict[str, str]:
    """The environment of a process in which a package with an entry point is installed."""
    facts = folder / "toys-1.0.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: toys\nVersion: 1.0\n")
    (facts / "entry_points.txt").write_text(f"[fimaq_deploy.targets]\ntoys = {entry}\n")
    paths = [str(folder), str(TESTS), str(TESTS.parent)]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}


def command(environment: dict[str, str], *arguments: object) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-m", "fimaq_deploy", *map(str, arguments)]
    return subprocess.run(words, env=environment, capture_output=True, text=True)


def test_a_package_that_is_installed_brings_its_target(tmp_path: Path, model_path: Path) -> None:
    environment = installed(tmp_path, TOY)
    told = command(environment, "doctor")
    assert re.search(r"^toy +builds and runs$", told.stdout, re.M), told.stderr
    timed = command(environment, "bench", model_path, "--target", "toy", "--batch", 1, "--rounds", 3, "--json", "-")
    (row,) = json.loads(timed.stdout)["rows"]
    assert row["target"] == "toy"


def test_a_package_that_does_not_load_is_one_line(tmp_path: Path) -> None:
    done = command(installed(tmp_path, "no.such.module"), "doctor")
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: the targets of no.such.module cannot be loaded (ModuleNotFoundError: ")
