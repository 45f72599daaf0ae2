"""What Triton reads is its own protobuf, in the module that tritonclient ships."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from fixtures.artifacts import NAMES, SCENE, add_head, write_facts

from fimaq_deploy.contract import Output, read_contract
from fimaq_deploy.errors import UserError
from fimaq_deploy.manifest import read_manifest
from fimaq_deploy.packaging.packages import package
from fimaq_deploy.pipeline.pixels import write_pixels
from fimaq_deploy.runtime.artifact import open_artifact
from fimaq_deploy.runtime.head import load_head
from fimaq_deploy.runtime.objects import Detector, Segmenter
from fimaq_deploy.runtime.predictor import Array
from fimaq_deploy.runtime.verification import verify_artifact

FIELDS = "model_config_pb2.py"


@pytest.fixture(scope="module")
def published() -> ModuleType:
    """The module alone: the package around it needs gRPC."""
    found = importlib.util.find_spec("tritonclient")
    if found is None or not found.submodule_search_locations:
        pytest.skip("tritonclient is not installed")
    (file,) = Path(found.submodule_search_locations[0]).rglob(FIELDS)
    spec = importlib.util.spec_from_file_location("triton_model_config", file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def parsed(published: Any, folder: Path) -> Any:
    from google.protobuf import text_format

    return text_format.Parse((folder / "config.pbtxt").read_text(), published.ModelConfig())


def test_the_configuration_says_what_the_contract_says(published: Any, artifact: Path, tmp_path: Path) -> None:
    out = package(artifact, "triton", out=tmp_path / "repository", batch=16).out
    config = parsed(published, out / "tiny")
    assert (config.name, config.backend, config.max_batch_size) == ("tiny", "onnxruntime", 16)
    (images,), (logits,) = config.input, config.output
    assert (images.name, list(images.dims), images.data_type) == ("images", [3, 8, 8], published.TYPE_FP32)
    assert (logits.name, list(logits.dims), logits.label_filename) == ("logits", [10], "labels.txt")
    assert list(config.dynamic_batching.preferred_batch_size) == [4, 8, 16]
    assert config.instance_group[0].kind == published.ModelInstanceGroup.KIND_CPU
    assert config.model_warmup[0].inputs["images"].zero_data is True
    assert (out / "tiny" / "labels.txt").read_text().splitlines() == list(NAMES)
    stored = out / "tiny" / "1" / config.default_model_filename
    assert stored.read_bytes() == (artifact / "model.onnx").read_bytes()


def test_a_repository_holds_folders_of_models_alone(artifact: Path, tmp_path: Path) -> None:
    out = package(artifact, "triton", out=tmp_path / "repository").out
    assert [path.name for path in out.iterdir()] == ["tiny"]
    assert (out / "tiny" / "bom.cdx.json").is_file()


def test_the_file_with_its_preprocessing_inside_takes_bytes(published: Any, artifact: Path, tmp_path: Path) -> None:
    contract = read_contract((read_manifest(artifact) or {})["contract"], "")
    write_pixels(artifact / "model.onnx")
    write_facts(artifact, contract)
    out = package(artifact, "triton", out=tmp_path / "repository", pixels=True).out
    config = parsed(published, out / "tiny")
    (images,) = config.input
    assert (images.name, list(images.dims), images.data_type) == ("pixels", [8, 8, 3], published.TYPE_UINT8)
    assert (out / "tiny" / "1" / "model.onnx").read_bytes() == (artifact / "model.pixels.onnx").read_bytes()
    assert verify_artifact(artifact, targets=["onnxruntime-cpu"], time=False).good


def test_an_engine_of_tensorrt_is_taken_where_there_is_one(published: Any, artifact: Path, tmp_path: Path) -> None:
    contract = read_contract((read_manifest(artifact) or {})["contract"], "")
    (artifact / "model.tensorrt.engine").write_bytes(b"engine")
    write_facts(artifact, contract)
    out = package(artifact, "triton", out=tmp_path / "repository").out
    config = parsed(published, out / "tiny")
    assert config.backend == "tensorrt" and (out / "tiny" / "1" / "model.plan").read_bytes() == b"engine"
    assert config.instance_group[0].kind == published.ModelInstanceGroup.KIND_GPU


def test_openvino_runs_a_request_as_it_comes(published: Any, artifact: Path, tmp_path: Path) -> None:
    """With a batch in its configuration the backend would refuse all other sizes, or fill them up."""
    done = package(artifact, "triton", out=tmp_path / "repository", target="openvino-cpu")
    config = parsed(published, done.out / "tiny")
    assert (config.backend, config.max_batch_size, config.default_model_filename) == ("openvino", 0, "model.onnx")
    assert not config.HasField("dynamic_batching") and any("no requests together" in note for note in done.notes)
    assert config.instance_group[0].kind == published.ModelInstanceGroup.KIND_CPU
    (images,), (logits,) = config.input, config.output
    assert (list(images.dims), list(logits.dims)) == ([-1, 3, 8, 8], [-1, 10])
    assert list(config.model_warmup[0].inputs["images"].dims) == [1, 3, 8, 8]
    with pytest.raises(UserError, match="--batch is not for"):
        package(artifact, "triton", out=tmp_path / "other", target="openvino-cpu", batch=8)


def test_openvino_reads_of_the_repository_what_its_configuration_says(
    published: Any, artifact: Path, tmp_path: Path
) -> None:
    openvino = pytest.importorskip("openvino")
    out = package(artifact, "triton", out=tmp_path / "repository", target="openvino-cpu").out
    config = parsed(published, out / "tiny")
    model = openvino.Core().read_model(out / "tiny" / "1" / config.default_model_filename)
    for own, told in ((model.inputs, config.input), (model.outputs, config.output)):
        assert [one.any_name for one in own] == [one.name for one in told]
        sides = [[-1 if side.is_dynamic else side.get_length() for side in one.partial_shape] for one in own]
        assert sides == [list(one.dims) for one in told]


def run_ensemble(published: Any, out: Path, images: Array) -> dict[str, Array]:
    """What the configurations say that a server does, with ONNX Runtime: each step reads what those before it wrote."""
    import onnxruntime

    config = parsed(published, out / "tiny")
    held = {config.input[0].name: images}
    for step in config.ensemble_scheduling.step:
        own = parsed(published, out / step.model_name)
        file = out / step.model_name / "1" / own.default_model_filename
        session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
        assert {one.name for one in own.input} == set(step.input_map)
        names = [one.name for one in own.output]  # a map of protobuf has no order
        found = session.run(names, {name: held[of] for name, of in step.input_map.items()})
        for one, array in zip(own.output, found, strict=True):
            told = [len(array), *one.dims] if own.max_batch_size else list(one.dims)
            assert all(side in (-1, have) for side, have in zip(told, array.shape, strict=True)), one.name
        assert {*step.output_map} == {*names}
        held |= {step.output_map[name]: array for name, array in zip(names, found, strict=True)}
    return {one.name: held[one.name] for one in config.output}


@pytest.mark.parametrize("kind", ["detection", "segmentation"])
@pytest.mark.parametrize("target", ["onnxruntime-cpu", "openvino-cpu"])
def test_a_head_is_an_ensembles_second_step(
    published: Any, artifact: Path, tmp_path: Path, kind: str, target: str
) -> None:
    add_head(artifact, kind)
    done = package(artifact, "triton", out=tmp_path / "repository", target=target)
    assert sorted(path.name for path in done.out.iterdir()) == ["tiny", "tiny_encoder", "tiny_head"]
    config = parsed(published, done.out / "tiny")
    assert (config.platform, config.max_batch_size, list(config.input[0].dims)) == ("ensemble", 0, [1, 3, 8, 8])
    assert (done.out / "tiny" / "1").is_dir() and (done.out / "tiny" / "bom.cdx.json").is_file()
    assert (done.out / "tiny" / "labels.txt").read_text().splitlines() == list(SCENE)
    assert parsed(published, done.out / "tiny_encoder").max_batch_size == (32 if target == "onnxruntime-cpu" else 0)
    assert any("one image a request" in note for note in done.notes)
    predictor = (Detector if kind == "detection" else Segmenter)(artifact, target="onnxruntime-cpu")
    image = np.random.default_rng(3).normal(size=(1, 3, 8, 8)).astype(np.float32)
    (own,) = load_head(open_artifact(artifact))(predictor.run(image))
    found = run_ensemble(published, done.out, image)
    assert found.keys() == own.keys() and all(np.array_equal(found[name], own[name]) for name in own)


def test_numbers_beside_a_file_go_with_it(artifact: Path, tmp_path: Path) -> None:
    (artifact / "model.onnx.data").write_bytes(b"numbers")
    write_facts(artifact, read_contract((read_manifest(artifact) or {})["contract"], ""))
    out = package(artifact, "triton", out=tmp_path / "repository").out
    assert (out / "tiny" / "1" / "model.onnx.data").read_bytes() == b"numbers"


@pytest.mark.parametrize("name", ['a"b\\c\nd', "Ångström", "../../etc"])
def test_any_name_is_a_name(published: Any, artifact: Path, tmp_path: Path, name: str) -> None:
    contract = read_contract((read_manifest(artifact) or {})["contract"], "")
    odd = replace(contract, outputs=(Output(name, "float32", (None, 3), "dense"), Output("n", "int64")))
    write_facts(artifact, odd, model=name)
    out = package(artifact, "triton", out=tmp_path / "repository").out
    (model,) = out.iterdir()
    config = parsed(published, model)
    assert config.output[0].name == name and list(config.output[0].dims) == [-1, 3]
    assert config.name == model.name and model.resolve().parent == out.resolve()


def test_what_triton_does_not_run_is_refused(artifact: Path, tmp_path: Path) -> None:
    for target, message in (("tensorrt-rtx", "has no backend"), ("tensorrt", r"holds no model\.tensorrt\.engine")):
        with pytest.raises(UserError, match=message):
            package(artifact, "triton", out=tmp_path / "repository", target=target)
    with pytest.raises(UserError, match="batch"):
        package(artifact, "triton", out=tmp_path / "repository", batch=0)
    assert not (tmp_path / "repository").exists() and not list(tmp_path.glob(".folder-*"))
