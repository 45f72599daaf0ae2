from __future__ import annotations

import numpy as np
import pytest
from fixtures.road import ALL, Road

from fimaq_deploy.pipeline.compiled import compile_engines
from fimaq_deploy.pipeline.variants import Variants, load_variants, of_module


@pytest.fixture(scope="module")
def variants(road: Road) -> Variants:
    engines = compile_engines(ALL, road.files, lambda *_: None)
    return load_variants(of_module(road.model, road.quantized, road.files), road.files, engines)


def test_every_way_has_a_row_in_the_order_of_the_table(variants: Variants) -> None:
    assert [(one.id, one.compared_to, one.deployed, one.original) for one in variants.candidates] == [
        ("pytorch-fp32", None, False, True),
        ("onnx-fp32", "pytorch-fp32", False, True),
        ("fake-quant", "pytorch-fp32", False, False),
        ("onnx-reference", "fake-quant", False, False),
        ("onnxruntime-cpu", "onnx-reference", True, False),
        ("half-fp16", "pytorch-fp32", False, True),
        ("half", "onnx-reference", True, False),
        ("compiled-fp16", "pytorch-fp32", False, True),
        ("compiled", "onnx-reference", True, False),
        ("plain-fp32", "pytorch-fp32", False, True),
        ("plain", "onnx-reference", True, False),
        ("floats-fp16", "pytorch-fp32", True, True),
        ("floats", "onnx-reference", False, False),
        ("refused-fp16", "pytorch-fp32", False, True),
        ("refused", "onnx-reference", True, False),
        ("absent", "onnx-reference", True, False),
    ]


def test_what_does_not_run_says_why_and_names_a_file_where_there_is_one(variants: Variants) -> None:
    idle = {one.id: (one.not_run, one.file and one.file.name) for one in variants.candidates if one.run is None}
    assert idle == {
        "refused-fp16": ("the compiler does not take model.fp16.onnx", None),
        "refused": ("the compiler does not take model.fp16.onnx", None),
        "absent": ("it is not installed", "model.onnx"),
    }


def test_what_runs_names_its_file_and_is_timed_full_precision_first(variants: Variants) -> None:
    assert [(one.row, one.file.name) for one in variants.loaded] == [
        ("onnx-fp32", "model.fp32.onnx"),
        ("onnxruntime-cpu", "model.onnx"),
        ("half-fp16", "model.fp16.onnx"),
        ("half", "model.half.onnx"),
        ("compiled-fp16", "model.fp16.compiled.plan"),
        ("compiled", "model.compiled.plan"),
        ("plain-fp32", "model.fp32.plain.plan"),
        ("plain", "model.plain.plan"),
        ("floats-fp16", "model.fp16.onnx"),
        ("floats", "model.floats.onnx"),
    ]
    files = {one.id: one.file for one in variants.candidates if one.file is not None}
    assert {one.row: one.file for one in variants.loaded}.items() <= files.items()
    assert {row: id(runner) for row, runner in variants.runners.items()} == {
        one.id: id(one.run) for one in variants.candidates if one.id in variants.runners
    }


def test_parity_looks_inside_what_needs_no_other_engine(variants: Variants) -> None:
    assert variants.tapped == ["onnxruntime-cpu", "half", "floats"]


def test_all_that_run_compute_the_same_model(variants: Variants, random_images) -> None:
    images = random_images(4).numpy()
    own = variants.runners
    for row in ("half-fp16", "compiled-fp16", "plain-fp32"):
        np.testing.assert_allclose(own[row](images), own["onnx-fp32"](images), atol=0.05)
