"""Finished blocks on disk, so that an interrupted quantization goes on where it stopped."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from fimaq_deploy.calibration import parallel
from fimaq_deploy.calibration.learning.reconstruct import BlockRecord
from fimaq_deploy.calibration.state import fingerprint, frozen_state, load_frozen_state, read_state, write_state
from fimaq_deploy.errors import UserError


class Checkpoints:
    """Finished blocks in a folder, one safetensors file each; does nothing without a folder."""

    def __init__(self, folder: str | Path | None, identify: Callable[[], str]) -> None:
        self.folder = None if folder is None else Path(folder)
        self.identity = "" if folder is None else identify()
        if self.folder is not None:
            self.folder.mkdir(parents=True, exist_ok=True)

    def _path(self, position: int) -> Path:
        assert self.folder is not None
        return self.folder / f"block-{position:03d}.safetensors"

    def load(self, position: int, module: nn.Module) -> BlockRecord | None:
        """Restore a finished block; None where there is none.

        Raises:
            UserError: the folder belongs to another build, or the file is damaged.
        """
        if self.folder is None or not self._path(position).exists():
            return None
        state, metadata = read_state(self._path(position))
        if metadata.get("sha256") != _digest(state, metadata):
            raise UserError(
                f"{self._path(position)} is damaged: remove it, and the same command with --resume learns it again"
            )
        if metadata["identity"] != self.identity:
            raise UserError(
                f"{self.folder} holds blocks of another build (other model, images, recipe, target or seed): "
                "delete it or build without resuming"
            )
        load_frozen_state(module, state)
        return BlockRecord.from_dict(metadata["record"])

    def save(self, position: int, module: nn.Module, record: BlockRecord) -> None:
        if self.folder is not None:
            state, metadata = frozen_state(module), {"identity": self.identity, "record": record.as_dict()}
            write_state(self._path(position), state, {**metadata, "sha256": _digest(state, metadata)})


def _digest(state: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> str:
    """Of everything in a file but this. No manifest speaks for what is still being built."""
    told = {name: value for name, value in metadata.items() if name != "sha256"}
    return fingerprint(*(part for name in sorted(state) for part in (name, state[name])), told)


def resumed(checkpoints: Checkpoints, position: int, module: nn.Module) -> BlockRecord | None:
    """Restore a finished block in every process; None where there is none."""
    group = parallel.current()
    record = group.agree_on(lambda: checkpoints.load(position, module))
    if record is not None and group.size > 1:
        state = group.agree_on(lambda: frozen_state(module))
        if not group.leads:
            load_frozen_state(module, state)
    return record
