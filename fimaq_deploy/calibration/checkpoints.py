"""Finished blocks on disk, so that an interrupted quantization goes on where it stopped."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from torch import nn

from fimaq_deploy.calibration import parallel
from fimaq_deploy.calibration.learning.reconstruct import BlockRecord
from fimaq_deploy.calibration.state import frozen_state, load_frozen_state, read_state, write_state
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
            UserError: the folder belongs to another build.
        """
        if self.folder is None or not self._path(position).exists():
            return None
        state, metadata = read_state(self._path(position))
        if metadata["identity"] != self.identity:
            raise UserError(
                f"{self.folder} holds blocks of another build (other model, images, recipe, target or seed): "
                "delete it or build without resuming"
            )
        load_frozen_state(module, state)
        return BlockRecord.from_dict(metadata["record"])

    def save(self, position: int, module: nn.Module, record: BlockRecord) -> None:
        if self.folder is not None:
            metadata = {"identity": self.identity, "record": record.as_dict()}
            write_state(self._path(position), frozen_state(module), metadata)


def resumed(checkpoints: Checkpoints, position: int, module: nn.Module) -> BlockRecord | None:
    """Restore a finished block in every process; None where there is none."""
    group = parallel.current()
    record = group.agree_on(lambda: checkpoints.load(position, module))
    if record is not None and group.size > 1:
        state = group.agree_on(lambda: frozen_state(module))
        if not group.leads:
            load_frozen_state(module, state)
    return record
