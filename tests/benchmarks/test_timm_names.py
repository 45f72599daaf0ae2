"""The count of timm's names: all of Beit and SwinTransformerV2 are accepted, and what is refused says why."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "timm_names.py"


def test_a_table_and_a_line_of_json() -> None:
    words = [sys.executable, str(SCRIPT), "--modules", "beit", "vision_transformer_sam"]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    *table, last = done.stdout.splitlines()
    assert '"accepted": 13' in last
    assert any("Beit" in row and row.endswith("accepted") for row in table)
    assert any("VisionTransformerSAM" in row and "accepted" not in row for row in table)
