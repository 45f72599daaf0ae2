from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fimaq_deploy.errors import UserError
from fimaq_deploy.packaging.packages import FORMATS, package


@pytest.mark.parametrize("format", FORMATS)
def test_a_place_that_is_taken_stays_as_it_is(format: str, artifact: Path, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("mine")
    with pytest.raises(UserError, match="exists: name another place"):
        package(artifact, format, out=tmp_path / "taken")
    assert (tmp_path / "taken").read_text() == "mine"


@pytest.mark.parametrize("format", FORMATS)
def test_a_changed_build_is_in_no_package(format: str, artifact: Path, tmp_path: Path) -> None:
    with (artifact / "model.onnx").open("ab") as file:
        file.write(b"!")
    with pytest.raises(UserError, match=r"model\.onnx has"):
        package(artifact, format, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


OPTIONS: list[tuple[str, dict[str, Any], str]] = [
    ("zip", {}, "expected one of triton, tar, hf, oci"),
    ("tar", {"target": "tensorrt"}, "are for --format triton"),
    ("oci", {"pixels": True}, "are for --format triton"),
    ("triton", {"pixels": True, "target": "tensorrt"}, "takes prepared images"),
    ("triton", {"pixels": True}, r"holds no model\.pixels\.onnx"),
    ("oci", {"base_model": "a/b"}, "is for --format hf"),
    ("hf", {"base_model": "nobody"}, "expected OWNER/NAME"),
]


@pytest.mark.parametrize("format,options,message", OPTIONS)
def test_what_cannot_be_meant_is_refused(
    format: str, options: dict[str, Any], message: str, artifact: Path, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=message):
        package(artifact, format, out=tmp_path / "out", **options)


def test_a_build_that_is_the_current_folder_is_packed_beside_itself(
    artifact: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(artifact)
    assert package(".", "tar").out == artifact.with_name("artifact.tar").resolve()
    monkeypatch.chdir(artifact.parent)
    (artifact.parent / "artifact.tar").unlink()
    assert package("artifact/", "tar").out == Path("artifact.tar")
