from __future__ import annotations

import re

import pytest
from fixtures.commands import document, run

from fimaq_deploy.cli.doctor import _ability, _gpu, _loads
from fimaq_deploy.engines.cuda import Gpu
from fimaq_deploy.engines.provider_libraries import provider_libraries
from fimaq_deploy.engines.runtimes import RUNTIMES
from fimaq_deploy.pipeline.inventory import GpuAbility


def test_a_line_a_target(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("doctor") == 0
    text = capsys.readouterr().out
    for name, runtime in RUNTIMES.items():
        assert re.search(rf"^{name} +{re.escape(_ability(*runtime.availability()))}$", text, re.M)
        assert runtime.remark in text
    assert "no integer kernel behind Q/DQ" in text
    for library in provider_libraries():
        assert f"ONNX Runtime's {library.provider} library {_loads(library.missing)}" in text


def test_the_same_for_programs(capsys: pytest.CaptureFixture[str]) -> None:
    found = document(capsys, "doctor")
    assert found["schema"] == "fimaq-deploy/doctor/1"
    assert {one["name"]: (one["not_built"], one["not_run"]) for one in found["targets"]} == {
        name: runtime.availability() for name, runtime in RUNTIMES.items()
    }
    assert "onnx" in found["environment"]["packages"]
    assert {one["provider"]: one["missing"] for one in found["onnxruntime_providers"]} == {
        one.provider: one.missing for one in provider_libraries()
    }
    assert [one["name"] for one in found["targets"] if one["remark"]] == ["onnxruntime-cuda"]
    assert len(found["gpus"]) == 0 or found["cuda"]


@pytest.mark.parametrize(
    ("reasons", "said"),
    [
        ((None, None), "builds and runs"),
        ((None, "no GPU"), "builds, does not run: no GPU"),
        (("not here", "not here"), "no: not here"),
    ],
)
def test_ability_in_words(reasons: tuple[str | None, str | None], said: str) -> None:
    assert _ability(*reasons) == said


def test_a_gpu_is_named_with_what_compiles_for_it() -> None:
    hopper = GpuAbility.of(Gpu("NVIDIA H100", (9, 0), 80 << 30))
    assert re.fullmatch(
        r"NVIDIA H100, compute capability 9\.0, 80 GiB; tensorrt yes; "
        r"tensorrt-rtx no, it compiles for 7\.5, .*12\.1 only",
        _gpu(hopper),
    )
    assert hopper.document()["compute_capability"] == "9.0"
    ada = GpuAbility.of(Gpu("NVIDIA GeForce RTX 4090", (8, 9), 24 << 30))
    assert _gpu(ada).endswith("tensorrt yes; tensorrt-rtx yes") and not any(ada.not_for.values())
    assert (_loads(None), _loads("libcuda.so.1 is missing")) == ("loads", "does not load: libcuda.so.1 is missing")
