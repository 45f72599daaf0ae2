from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from fixtures.road import ABSENT, ALL, COMPILED, FLOATS, HALF, PLAIN, REFERENCE, Road
from onnx import TensorProto

from fimaq_deploy import quantize
from fimaq_deploy.data.intake import as_source
from fimaq_deploy.engines import load_engine
from fimaq_deploy.pipeline.exports import FP_ONNX, Files, Floats, write_files


def float_types(path: Path) -> set[int]:
    """Those of the stored tensors that are no integers."""
    kinds = {tensor.data_type for tensor in onnx.load(path).graph.initializer}
    return kinds & {TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16}


def test_who_reads_what(road: Road) -> None:
    names = {path.name for path in road.files.folder.glob("*.onnx")}
    own = {f"model.{name}.onnx" for name in ("half", "compiled", "floats", "refused")}
    assert names == {"model.onnx", FP_ONNX, "model.fp16.onnx", *own}
    for runtime in (REFERENCE, HALF, COMPILED, PLAIN, ABSENT):
        assert runtime.onnx(road.files.folder).name in names


def test_half_precision_is_in_the_files_of_those_who_compute_in_it(road: Road) -> None:
    files = road.files
    assert files.half is not None and files.half.high_precision == "float16"
    assert "FP16 around INT8" in files.half.note
    assert TensorProto.FLOAT16 not in float_types(files.onnx) | float_types(files.original)
    for path in (HALF.onnx(files.folder), files.yardstick_onnx(HALF)):
        assert TensorProto.FLOAT16 in float_types(path)


def test_without_half_precision_no_more_is_written_and_a_known_original_is_copied(
    road: Road, random_images, tmp_path: Path
) -> None:
    earlier = tmp_path / "earlier.onnx"
    earlier.write_bytes(b"whatever an earlier build wrote")
    odd = replace(HALF, target=replace(HALF.target, high_precision="float32", clip="integers"))
    out, images = tmp_path / "out", as_source(random_images(8))
    files = write_files(out, road.quantized, road.model, images, [REFERENCE, PLAIN, odd], earlier)
    assert files.half is None
    assert {path.name for path in out.iterdir()} == {"model.onnx", FP_ONNX, "model.half.onnx"}
    assert files.original.read_bytes() == earlier.read_bytes()
    assert files.onnx.read_bytes() == road.files.onnx.read_bytes()
    assert odd.onnx(out).read_bytes() != files.onnx.read_bytes(), "its integers are clipped, and not its floats"


@pytest.mark.parametrize(("high_precision", "short"), [("float16", "fp16"), ("bfloat16", "bf16")])
def test_the_yardstick_is_named_after_its_floats(high_precision: str, short: str) -> None:
    files = Files(Path("out"), Floats(high_precision, ""))
    assert files.yardstick(HALF) == files.yardstick_onnx(HALF) == Path(f"out/model.{short}.onnx")
    assert files.yardstick(COMPILED) == Path(f"out/model.{short}.compiled.plan")
    assert (files.yardstick_onnx(PLAIN), files.yardstick(PLAIN)) == (
        Path("out") / FP_ONNX,
        Path("out/model.fp32.plain.plan"),
    )
    assert [files.has_yardstick(one) for one in (REFERENCE, HALF, COMPILED, PLAIN)] == [False, True, True, True]


@pytest.fixture(scope="module")
def int4_weights(tiny_vit, random_images, quick_recipe, tmp_path_factory: pytest.TempPathFactory) -> Files:
    images, model = random_images(8), tiny_vit(embed_dim=64)
    w4a16 = {"weights": {"bits": 4, "block_size": 64}, "activations": {"bits": 16}, "head": {"quantize": "never"}}
    recipe = quick_recipe(**w4a16, reconstruction={"iterations": 0, "images": 8})
    quantized = quantize(model, images, recipe, "onnxruntime-cuda")
    return write_files(tmp_path_factory.mktemp("int4"), quantized, model, as_source(images), [FLOATS])


def test_where_no_integers_are_multiplied_the_original_is_shipped(road: Road) -> None:
    assert [one.name for one in ALL if road.files.ships_original(one)] == ["floats"]


def test_int4_weights_with_float_activations_have_a_kernel_there(int4_weights: Files, random_images) -> None:
    assert not int4_weights.ships_original(FLOATS)
    files = (FLOATS.onnx(int4_weights.folder), int4_weights.original)
    own, original = (load_engine(path)(random_images(4).numpy()) for path in files)
    assert np.abs(own - original).max() < 0.5 * np.abs(original).max()
