from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file

from fimaq_deploy.errors import shown

Refusal = Callable[..., str]

# Counts what it waits: how long imports and weights take is the machine's affair.
IN_A_PROCESS_OF_ITS_OWN = """
import time

sleep, waited = time.sleep, []
time.sleep = lambda seconds: (waited.append(seconds), sleep(min(seconds, 0.1)))[1]

from fimaq_deploy.errors import UserError
from fimaq_deploy.models.load import load_model

print(load_model("vit_t").head.bias.unique().tolist())
for name in ("hf_hub:me/vit", "hf-hub:me/vit@main", "hf-hub:me/transformers-vit"):
    model = load_model(name)
    print(name, model.head.bias.unique().tolist(), model.pretrained_cfg["mean"])
for name in ("deit_t", "hf-hub:me/absent", "hf-hub:a/b/c", "hf-hub:", "hf-hub:me/only-a-config"):
    try:
        load_model(name)
    except UserError as error:
        print(error)
print(sum(waited))
"""


def repository(cache: Path, name: str) -> Path:
    """The snapshot folder of a repository in a Hugging Face cache."""
    folder = cache / f"models--{name.replace('/', '--')}"
    snapshot = folder / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text("0" * 40)
    return snapshot


@pytest.fixture
def hub_cache(tmp_path: Path) -> Path:
    """A cache with weights of timm, a repository that timm wrote, one of `transformers`, and half a one."""
    small = {"img_size": 32, "depth": 1}
    state = timm.create_model("vit_tiny_patch16_224").state_dict()
    weights = repository(tmp_path, "timm/vit_tiny_patch16_224.augreg_in21k_ft_in1k")
    save_file({k: torch.full_like(v, 0.25) for k, v in state.items()}, weights / "model.safetensors")
    own = timm.create_model("vit_tiny_patch16_224", num_classes=3, **small).state_dict()
    config = {"architecture": "vit_tiny_patch16_224", "num_classes": 3, "model_args": small}
    mine = repository(tmp_path, "me/vit")
    (mine / "config.json").write_text(json.dumps({**config, "pretrained_cfg": {"mean": [0.1, 0.2, 0.3]}}))
    save_file({k: torch.full_like(v, 0.5) for k, v in own.items()}, mine / "model.safetensors")
    theirs = repository(tmp_path, "me/transformers-vit")
    size = {"image_size": 32, "hidden_size": 192, "num_hidden_layers": 1, "num_attention_heads": 3}
    (theirs / "config.json").write_text(json.dumps({"model_type": "vit", **size, "intermediate_size": 768}))
    (theirs / "preprocessor_config.json").write_text(json.dumps({"image_mean": [0.5, 0.5, 0.5]}))
    save_file({k: torch.full_like(v, 0.75) for k, v in own.items()}, theirs / "model.safetensors")
    (repository(tmp_path, "me/only-a-config") / "config.json").write_text("{}")
    return tmp_path


def test_the_cache_is_enough_and_without_it_the_failure_is_quick_and_says_the_fix(hub_cache: Path) -> None:
    closed = {"HF_HUB_CACHE": str(hub_cache), "HF_ENDPOINT": "http://127.0.0.1:9", "NO_PROXY": "*"}
    done = subprocess.run(
        [sys.executable, "-c", IN_A_PROCESS_OF_ITS_OWN],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, **closed},
    )
    timms, mine, again, theirs, absent, unknown, malformed, empty, half, waited = done.stdout.splitlines()
    assert timms == "[0.25]"
    assert mine == "hf_hub:me/vit [0.5] [0.1, 0.2, 0.3]"
    assert again == "hf-hub:me/vit@main [0.5] [0.1, 0.2, 0.3]"
    assert theirs == "hf-hub:me/transformers-vit [0.75] (0.5, 0.5, 0.5)"
    for text, name in ((absent, "deit_tiny_patch16_224.fb_in1k"), (unknown, "me/absent"), (half, "me/only-a-config")):
        assert text.startswith(f"the pretrained weights of '{name}' cannot be downloaded (")
        assert "pass --weights PATH" in text
    assert malformed.startswith("'a/b/c' is no name on the hub")
    assert empty.startswith("'' is no name on the hub")
    assert float(waited) < 5, "seconds of waiting for another try, of a hub that answers nothing"


def test_name_without_pretrained_weights(refusal: Refusal) -> None:
    assert "has no pretrained weights in timm" in refusal("vit_base_patch16_gap_224")


def test_local_folders_that_are_none(tmp_path: Path, refusal: Refusal) -> None:
    absent = f"{tmp_path}/absent"
    assert f"no folder '{shown(absent)}': expected the folder of a model" in refusal(f"local-dir:{absent}")
    assert "an empty path" in refusal("local-dir:")
    assert "holds no config.json" in refusal(f"local-dir:{tmp_path}")
