from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fixtures.artifacts import SCENE, add_head

from fimaq_deploy.errors import UserError
from fimaq_deploy.packaging.packages import FORMATS, package
from fimaq_deploy.packaging.unpacking import unpack
from fimaq_deploy.runtime.objects import Detector


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


def test_a_head_its_contract_and_its_classes_travel(artifact: Path, tmp_path: Path) -> None:
    add_head(artifact, "detection")
    hub = package(artifact, "hf", out=tmp_path / "hub").out
    unpacked = unpack(package(artifact, "tar", out=tmp_path / "x.tar").out).out
    image = np.full((8, 8, 3), 200, np.uint8)
    own = Detector(artifact, target="onnxruntime-cpu").predict(image)
    assert own and {one.name for one in own} <= {*SCENE}
    for copy in (hub, unpacked):
        assert Detector(copy, target="onnxruntime-cpu").predict(image) == own


def test_a_build_that_is_the_current_folder_is_packed_beside_itself(
    artifact: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(artifact)
    assert package(".", "tar").out == artifact.with_name("artifact.tar").resolve()
    monkeypatch.chdir(artifact.parent)
    (artifact.parent / "artifact.tar").unlink()
    assert package("artifact/", "tar").out == Path("artifact.tar")
