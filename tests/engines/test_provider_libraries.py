from __future__ import annotations

from pathlib import Path

import onnxruntime
import pytest

from fimaq_deploy.engines.provider_libraries import (
    ProviderLibrary,
    libraries_of,
    provider_libraries,
    why_not_loaded,
)


def test_every_library_of_the_installed_package_is_tried() -> None:
    files = {file.name for file in (Path(onnxruntime.__file__).parent / "capi").glob("*onnxruntime_providers_*")}
    names = {name.partition("providers_")[2].partition(".")[0] for name in files} - {"shared"}
    found = provider_libraries()
    assert {one.provider for one in found} == names
    assert all(one.missing is None or "\n" not in one.missing for one in found)
    for one in found:
        assert why_not_loaded(one.provider) == one.missing


def test_what_is_missing_is_named() -> None:
    found = libraries_of(
        [
            ("libonnxruntime_providers_cuda.so", "libcublasLt.so.13: cannot open shared object file: No such file"),
            ("libonnxruntime_providers_shared.so", None),
            ("onnxruntime_providers_tensorrt.dll", "Could not find module\n'x' (or one of its dependencies)"),
            ("libonnxruntime_providers_openvino.so", None),
        ]
    )
    assert found == (
        ProviderLibrary("cuda", "libcublasLt.so.13 is missing"),
        ProviderLibrary("tensorrt", "Could not find module 'x' (or one of its dependencies)"),
        ProviderLibrary("openvino", None),
    )


@pytest.mark.parametrize("provider", ["cuda", "tensorrt"])
def test_a_provider_without_a_file_says_nothing(provider: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.executable", "/nowhere/python")
    provider_libraries.cache_clear()
    assert why_not_loaded(provider) is None
    provider_libraries.cache_clear()
