"""What a long benchmark has measured so far: a file with one JSON object a line, each written as soon as it is done."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def kept(path: Path | None) -> list[dict[str, Any]]:
    """The cells of earlier runs; none where there is no file yet."""
    lines = path.read_text(encoding="utf-8").splitlines() if path and path.exists() else []
    return [json.loads(line) for line in lines]


def keep(path: Path | None, cell: dict[str, Any]) -> None:
    """Add a cell, where there is a file to add to."""
    if path:
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(cell) + "\n")
