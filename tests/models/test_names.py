from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import timm

from fimaq_deploy.errors import UserError
from fimaq_deploy.models.bundled import BUNDLED
from fimaq_deploy.models.names import SHORT_NAMES, kind_of_name, model_names, require_known

Refusal = Callable[..., str]


def test_names_for_help_are_the_bundled_and_the_short_ones() -> None:
    assert model_names()[:4] == list(BUNDLED)
    assert {"vit_l", "deit_b", "swin_b_384"} < set(model_names())


def test_short_names_are_weights_that_timm_has() -> None:
    for full in SHORT_NAMES.values():
        assert timm.get_pretrained_cfg(full).hf_hub_id == f"timm/{full}"


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("vit_digits", "bundled"),
        ("vit_t", "timm"),
        ("vit_tiny_patch16_224", "timm"),
        ("no_such_model", "timm"),
        ("my.models:create", "factory"),
        ("hf-hub:timm/vit_tiny", "hub"),
        ("hf_hub:timm/vit_tiny", "hub"),
        ("local-dir:folder", "hub"),
        ("folder", "folder"),
        ("./folder/", "folder"),
        ("vit_s", "timm"),
    ],
)
def test_kinds_of_names(name: str, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in ("folder", "vit_s", "vit_tiny_patch16_224"):
        (tmp_path / folder).mkdir()
    assert kind_of_name(name) == kind


def test_unknown_name_gets_the_nearest_names(refusal: Refusal) -> None:
    text = refusal("vit_digit")
    assert text.startswith("unknown model 'vit_digit': did you mean vit_digits?")
    assert "vit_small_patch" in refusal("vit_smal")
    assert "swin_tiny_patch4_window7_224" in refusal("swin_tiny_patch4_window7_225")


def test_name_like_nothing_gets_the_list(refusal: Refusal) -> None:
    assert "expected vit_digits, swin_digits" in refusal("q")


@pytest.mark.parametrize(
    "name", ["", " ", "x" * 300, "x" * 100_000, "a\0b", "é" * 200, "x" * 300 + ":y", ":", "::", ":x"]
)
def test_names_that_are_none(name: str, refusal: Refusal) -> None:
    refusal(name)
    with pytest.raises(UserError):
        require_known(name)


def test_unknown_timm_tag_gets_the_tags(refusal: Refusal) -> None:
    assert "expected one of deit_tiny_patch16_224.fb_in1k" in refusal("deit_tiny_patch16_224.in21k")


@pytest.mark.parametrize("name", ["model.safetensors", "a/model.pth"])
def test_a_weights_file_given_as_a_model(
    name: str, tmp_path: Path, refusal: Refusal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).touch()
    assert refusal(name) == (
        f"model '{name}' is a file, which does not say of what architecture: give --model NAME --weights {name}"
    )


def test_other_files_and_places_given_as_a_model(tmp_path: Path, refusal: Refusal) -> None:
    (tmp_path / "a.onnx").touch()
    (tmp_path / "a.txt").touch()
    assert "is an ONNX file" in refusal(str(tmp_path / "a.onnx"))
    assert "give its folder, or a name" in refusal(str(tmp_path / "a.txt"))
    assert (
        "no folder 'google/vit-base': expected a folder of a Hugging Face model, or hf-hub:google/vit-base"
        in refusal("google/vit-base")
    )
    assert "holds no config.json" in refusal(str(tmp_path))
