"""A build as one tar: its files in one folder, without owners, times or links; equal builds give equal tars."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Mapping
from pathlib import Path

from fimaq_deploy.packaging.facts import Facts


def write_tar(facts: Facts, path: Path, more: Mapping[str, bytes]) -> list[str]:
    """Write it to a path. more: other files, by name. Returns what a user should know."""
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
        for name in facts.names:
            source = facts.artifact.path / name
            with source.open("rb") as file:  # also where it is a link: what it leads to
                tar.addfile(_plain(f"{facts.name}/{name}", source.stat().st_size), file)
        for name, data in more.items():
            tar.addfile(_plain(f"{facts.name}/{name}", len(data)), io.BytesIO(data))
    return []


def _plain(name: str, size: int) -> tarfile.TarInfo:
    """A regular file that belongs to nobody and has no date."""
    info = tarfile.TarInfo(name)
    info.size, info.mode = size, 0o644
    return info
