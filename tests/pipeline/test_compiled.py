from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fixtures.road import ABSENT, ALL, COMPILED, FLOATS, HALF, PLAIN, REFERENCE, REFUSED, Road

from fimaq_deploy.engines.runtimes import find_runtime
from fimaq_deploy.pipeline.compiled import Engine, compile_engines
from fimaq_deploy.pipeline.exports import write_files


def test_every_target_tells_what_became_of_it(road: Road) -> None:
    told: list[tuple[int, int, str]] = []
    found = {one.runtime.name: one for one in compile_engines(ALL, road.files, lambda *call: told.append(call))}
    assert told == [(number, len(ALL), runtime.name) for number, runtime in enumerate(ALL)]
    assert found[REFERENCE.name] == Engine(REFERENCE)
    assert found["half"] == Engine(HALF)
    assert found["compiled"] == Engine(COMPILED, compile_seconds=0.5)
    assert found["plain"] == Engine(PLAIN, compile_seconds=0.5)
    assert found["absent"] == Engine(ABSENT, None, "it is not installed"), "the ONNX file is all that it needs"
    assert found["floats"] == Engine(FLOATS, ships_original=True)
    assert found["refused"] == Engine(REFUSED, "the compiler does not take model.fp16.onnx", failed=True)


def test_both_models_are_compiled(road: Road) -> None:
    compile_engines([COMPILED, PLAIN], road.files, lambda *_: None)
    folder = road.files.folder
    assert (folder / "model.compiled.plan").read_bytes() == (folder / "model.compiled.onnx").read_bytes()
    assert (folder / "model.fp16.compiled.plan").read_bytes() == (folder / "model.fp16.onnx").read_bytes()
    assert (folder / "model.plain.plan").read_bytes() == (folder / "model.onnx").read_bytes()
    assert (folder / "model.fp32.plain.plan").read_bytes() == (folder / "model.fp32.onnx").read_bytes()


def test_a_compiler_with_a_layer_plan_is_audited_beside_the_original(tiny_vit, random_images, tmp_path) -> None:
    pytest.importorskip("tensorrt_rtx")
    from fimaq_deploy import Recipe, quantize
    from fimaq_deploy.data.intake import as_source

    rtx, images = find_runtime("tensorrt-rtx"), random_images(8)
    model = tiny_vit(embed_dim=64)
    few = {"scale_search": {"candidates": 4}, "reconstruction": {"iterations": 0}, "tuning": {"iterations": 0}}
    quantized = quantize(model, images, Recipe.load("w8a8").replace(**few), rtx.name)
    files = write_files(tmp_path, quantized, model, as_source(images), [rtx])
    (engine,) = compile_engines([rtx], files, lambda *_: None)
    assert engine.not_built is None and engine.compile_seconds and engine.audit is not None
    assert (engine.audit.target, engine.audit.broken) == ("tensorrt-rtx", ())
    assert all(block.twin_kernels for block in engine.audit.blocks)


def test_engines_are_for_the_gpus_from_the_oldest_on_that_was_asked_for(road: Road) -> None:
    asked: list[Any] = []

    def note(onnx: Path, engine: Path, /, *, compute_for: Any, verbose: bool) -> Any:
        asked.append(compute_for)
        return COMPILED.compiler(onnx, engine, compute_for=compute_for, verbose=verbose)  # type: ignore[misc]

    runtime = replace(COMPILED, compiler=note, generations=lambda: [(8, 0), (8, 9), (12, 0)])
    for sm in (None, 89):
        compile_engines([runtime], road.files, lambda *_: None, sm)
    assert asked == [None, None, [(8, 9), (12, 0)], [(8, 9), (12, 0)]]
    for unknown in (87, 100, 130):
        (engine,) = compile_engines([runtime], road.files, lambda *_: None, unknown)
        assert engine.failed and "compiles for 80, 89, 120" in (engine.not_built or "")
