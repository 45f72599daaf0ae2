from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from fimaq_deploy.calibration.checkpoints import Checkpoints, resumed
from fimaq_deploy.calibration.learning.reconstruct import BlockRecord
from fimaq_deploy.calibration.learning.scale_search import search_stage
from fimaq_deploy.calibration.quantizers.grid import ActivationGrid, WeightGrid
from fimaq_deploy.calibration.quantizers.layers import QuantizedLinear, enable_quantization, freeze
from fimaq_deploy.errors import UserError

RECORD = BlockRecord("blocks.0", 0.5, 0.25, 100, 1.5, ((1, 0.5), (100, 0.25)), "converged")


def block(seed: int, *, frozen: bool) -> nn.Module:
    """Two quantized layers of 4 bits."""
    torch.manual_seed(seed)
    layers = (QuantizedLinear(nn.Linear(32, 32), WeightGrid(4), ActivationGrid(8, "asymmetric")) for _ in range(2))
    module = nn.Sequential(*layers).requires_grad_(False)
    search_stage(module, [torch.randn(50, 32)], 16)
    if frozen:
        freeze(module)
        enable_quantization(module, True)
    return module


@torch.no_grad()
def outputs(module: nn.Module) -> torch.Tensor:
    return module(torch.linspace(-2, 2, 160).view(5, 32))


def test_a_finished_block_comes_back_with_its_record(tmp_path: Path) -> None:
    finished, fresh = block(0, frozen=True), block(1, frozen=False)
    Checkpoints(tmp_path / "resume", lambda: "this build").save(3, finished, RECORD)
    assert resumed(Checkpoints(tmp_path / "resume", lambda: "this build"), 3, fresh) == RECORD
    assert torch.equal(outputs(fresh), outputs(finished))
    assert not torch.equal(outputs(block(1, frozen=True)), outputs(finished))


def test_a_block_that_was_not_finished_is_none(tmp_path: Path) -> None:
    kept = Checkpoints(tmp_path, lambda: "this build")
    kept.save(0, block(0, frozen=True), RECORD)
    assert resumed(kept, 1, block(1, frozen=False)) is None


def test_blocks_of_another_build_are_refused(tmp_path: Path) -> None:
    Checkpoints(tmp_path, lambda: "this build").save(0, block(0, frozen=True), RECORD)
    fresh = block(1, frozen=False)
    before = outputs(fresh)
    with pytest.raises(UserError, match="holds blocks of another build"):
        resumed(Checkpoints(tmp_path, lambda: "another"), 0, fresh)
    assert torch.equal(outputs(fresh), before)


def test_without_a_folder_nothing_is_identified_or_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def costly() -> str:
        raise AssertionError("the model was hashed for nothing")

    monkeypatch.chdir(tmp_path)
    kept = Checkpoints(None, costly)
    kept.save(0, block(0, frozen=True), RECORD)
    assert resumed(kept, 0, block(1, frozen=False)) is None
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_block_is_refused_by_its_file(tmp_path: Path) -> None:
    kept = Checkpoints(tmp_path, lambda: "this build")
    kept.save(0, block(0, frozen=True), RECORD)
    path = tmp_path / "block-000.safetensors"
    whole = path.read_bytes()
    for at in range(8, len(whole), 61):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        with pytest.raises(UserError, match=r"block-000\.safetensors"):
            resumed(kept, 0, block(1, frozen=False))
