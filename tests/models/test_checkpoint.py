from __future__ import annotations

import json
import os
import sys
from argparse import Namespace
from collections import OrderedDict, defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from fimaq_deploy.errors import UserError, shown
from fimaq_deploy.models.checkpoint import read_checkpoint, split_choice, tensors
from fimaq_deploy.models.load import load_model

Refusal = Callable[..., str]
Same = Callable[[nn.Module, nn.Module], bool]


class Settings(dict[str, Any]):
    """A mapping of a class of the user's own, as configuration libraries have."""


class Running:
    """Code that runs when it is unpickled, as a malicious checkpoint has."""

    def __reduce__(self) -> Any:
        return os.mkdir, (str(Path.cwd() / "was-run"),)


class RunningByName:
    def __reduce__(self) -> Any:
        return __import__, ("antigravity",)


def saved(path: Path, content: Any) -> Path:
    torch.save(content, path)
    return path


def trained() -> nn.Module:
    return load_model("vit_digits", "random", seed=9)


def test_safetensors(tmp_path: Path, same: Same) -> None:
    save_file(trained().state_dict(), tmp_path / "a.safetensors")
    assert same(load_model("vit_digits", tmp_path / "a.safetensors"), trained())


@pytest.mark.parametrize("name", ["a.pth", "a.pt", "a.bin", "a.ckpt", "a.tar", "a.pth.tar", "weights", "a.model"])
def test_a_torch_file_may_be_called_anything(tmp_path: Path, name: str, same: Same) -> None:
    path = saved(tmp_path / name, trained().state_dict())
    assert same(load_model("vit_digits", path), trained())


def test_the_format_of_old_torch_versions(tmp_path: Path, same: Same) -> None:
    torch.save({"state_dict": trained().state_dict()}, tmp_path / "a.pth", _use_new_zipfile_serialization=False)
    assert same(load_model("vit_digits", tmp_path / "a.pth"), trained())


BESIDE: dict[str, Any] = {
    "NumPy scalars": {"best_acc": np.float64(0.9), "epoch": np.int64(3), "flag": np.bool_(True)},
    "a NumPy array": {"history": np.arange(5.0)},
    "training arguments": {"args": Namespace(lr=0.1, path=Path("/data"), device=torch.device("cpu"))},
    "a default dictionary": {"metrics": defaultdict(list, {"loss": [1.0, 2.0]})},
    "an optimizer": {"optimizer": torch.optim.AdamW([nn.Parameter(torch.ones(3))]).state_dict()},
    "random states": {"rng": torch.get_rng_state(), "numpy": np.random.RandomState(0).get_state()},
    "sets, bytes and numbers": {"a": {1, 2}, "b": b"bytes", "c": 2**100, "d": 1 + 2j, "e": None, "f": (1, [2])},
    "a scheduler": {"lr_scheduler": OrderedDict(base_lrs=[0.1], step=torch.tensor(3))},
}


@pytest.mark.parametrize("beside", BESIDE)
@pytest.mark.parametrize("wrapped", [True, False])
def test_what_lies_beside_the_weights_does_not_matter(tmp_path: Path, beside: str, wrapped: bool, same: Same) -> None:
    state = trained().state_dict()
    path = saved(tmp_path / "a.ckpt", {**({"model": state} if wrapped else state), **BESIDE[beside]})
    assert same(load_model("vit_digits", path), trained())


def test_whole_modules_give_their_weights_and_run_no_code(tmp_path: Path, same: Same) -> None:
    model = trained()
    for content in (model, {"model": model, "epoch": 3}, nn.DataParallel(model)):
        assert same(load_model("vit_digits", saved(tmp_path / "a.pth", content)), model)


def test_code_in_a_checkpoint_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refusal: Refusal) -> None:
    monkeypatch.chdir(tmp_path)
    state = trained().state_dict()
    for content in ({"model": state, "x": Running()}, {"model": state, "x": RunningByName()}):
        path = saved(tmp_path / "a.pth", content)
        try:
            load_model("vit_digits", path)
        except UserError as error:
            assert "holds Python objects" in str(error)
        assert not (tmp_path / "was-run").exists()
        assert "antigravity" not in sys.modules


def test_objects_that_cannot_be_read_without_their_code(tmp_path: Path, refusal: Refusal) -> None:
    text = refusal("vit_digits", saved(tmp_path / "a.pth", {"model": Settings(a=1)}))
    assert "holds Python objects (" in text
    assert "Settings" in text
    assert text.endswith("save model.state_dict() alone")


def test_missing(tmp_path: Path, refusal: Refusal) -> None:
    absent = tmp_path / "absent.pth"
    assert refusal("vit_digits", absent).startswith(f"no checkpoint '{shown(str(absent))}'")
    assert "expected 'pretrained', 'random' or the path of" in refusal("vit_digits", "pretrain")
    assert "no checkpoint ''" in refusal("vit_digits", "")
    assert "file name too long" in refusal("vit_digits", "x" * 300)


@pytest.mark.parametrize("name", ["a.safetensors", "a.pth", "a.bin", "a.ckpt", "a.txt", "a"])
@pytest.mark.parametrize(
    "content", [b"", b"not a checkpoint at all", bytes(range(256)) * 20, b"PK\x03\x04", b"\x80\x02}."]
)
def test_corrupt(tmp_path: Path, name: str, content: bytes, refusal: Refusal) -> None:
    (tmp_path / name).write_bytes(content)
    text = refusal("vit_digits", tmp_path / name)
    assert f"{name} is corrupt or no" in text or "holds no tensors" in text


@pytest.mark.parametrize("suffix", ["safetensors", "pth"])
@pytest.mark.parametrize("cut", [1, 1000, 100_000])
def test_truncated(tmp_path: Path, suffix: str, cut: int, refusal: Refusal) -> None:
    path = tmp_path / f"a.{suffix}"
    state = trained().state_dict()
    (save_file if suffix == "safetensors" else torch.save)(state, path)
    path.write_bytes(path.read_bytes()[:-cut])
    assert f"{path} is corrupt" in refusal("vit_digits", path)


def test_without_tensors(tmp_path: Path, refusal: Refusal) -> None:
    for content in ({"model": {"epoch": 3}}, [], 3, "text", None, {}):
        assert "holds no tensors" in refusal("vit_digits", saved(tmp_path / "a.pth", content))


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
def test_a_folder_with_a_weights_file(tmp_path: Path, name: str, same: Same) -> None:
    state = trained().state_dict()
    (save_file if name.endswith("safetensors") else torch.save)(state, tmp_path / name)
    assert same(load_model("vit_digits", tmp_path), trained())


def test_a_folder_of_shards(tmp_path: Path, same: Same) -> None:
    state = trained().state_dict()
    names = sorted(state)
    places = {name: f"model-{index % 3 + 1:05d}-of-00003.safetensors" for index, name in enumerate(names)}
    for place in set(places.values()):
        save_file({name: state[name] for name in names if places[name] == place}, tmp_path / place)
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": places}))
    assert same(load_model("vit_digits", tmp_path), trained())
    assert same(load_model("vit_digits", index), trained())


def test_bad_folders(tmp_path: Path, refusal: Refusal) -> None:
    assert f"folder {tmp_path} holds no weights: expected one of model.safetensors" in refusal("vit_digits", tmp_path)
    index = tmp_path / "model.safetensors.index.json"
    for content, reason in (
        ("{", "is no index of weight files"),
        ("[]", "is no index of weight files"),
        (
            '{"weight_map": {"a": "../../etc/passwd"}}',
            "names the weight file ../../etc/passwd: expected files beside it",
        ),
        ('{"weight_map": {"a": 3}}', "names the weight file 3"),
        ('{"weight_map": {"a": "absent.safetensors"}}', "no checkpoint"),
    ):
        index.write_text(content)
        assert reason in refusal("vit_digits", tmp_path)


def test_choices_are_named_after_the_file(tmp_path: Path) -> None:
    assert split_choice("a.pth#state_dict") == (Path("a.pth"), "state_dict")
    assert split_choice("a.pth") == (Path("a.pth"), None)
    assert split_choice("#a") == (Path("#a"), None)
    (tmp_path / "run#3").touch()
    assert split_choice(tmp_path / "run#3") == (tmp_path / "run#3", None)
    assert split_choice(f"{tmp_path}/run#3#model") == (tmp_path / "run#3", "model")


def test_what_holds_itself_is_entered_once(tmp_path: Path) -> None:
    content: dict[str, Any] = {"a": torch.ones(1)}
    content["self"] = content
    assert [path for path, _ in tensors(content)] == [("a",)]
    assert [path for path, _ in tensors(read_checkpoint(saved(tmp_path / "a.pth", content)))] == [("a",)]


def test_a_pipe_or_a_device_is_not_waited_for(tmp_path: Path, refusal: Refusal) -> None:
    os.mkfifo(tmp_path / "pipe.pth")
    for path in (tmp_path / "pipe.pth", "/dev/zero"):
        assert "is a pipe or a device" in refusal("vit_digits", path)
