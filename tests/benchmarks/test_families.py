"""The table of families: a row on the whole road, and one that says why it failed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[2] / "benchmarks"


@pytest.mark.slow
def test_a_row_and_a_line_of_json(tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx")
    words = [sys.executable, str(SCRIPTS / "families.py"), "--rows", "torchvision VisionTransformer"]
    done = subprocess.run(
        [*words, "--iterations", "2", "--out", str(tmp_path / "rows.jsonl")], capture_output=True, text=True, check=True
    )
    *_, row, last = done.stdout.splitlines()
    assert row.startswith("| torchvision VisionTransformer |")
    assert json.loads(last)["failed"] == 0
    known = json.loads((tmp_path / "rows.jsonl").read_text())
    assert known["copy"] < 1e-4 and set(known["cosines"]) == {"w8a8", "w4a8"} and known["kernels"]


def test_every_family_has_an_instance_and_a_failure_is_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("transformers")
    monkeypatch.syspath_prepend(str(SCRIPTS))
    import families as table  # type: ignore[import-not-found]
    from family_instances import INSTANCES  # type: ignore[import-not-found]
    from torch import nn

    from fimaq_deploy.models.families import families, family_of

    there = {family_of(make()).name for make in INSTANCES.values()}
    assert there >= {one.name for one in families() if one.kinds}
    row = table.measured("nothing", lambda: nn.Linear(2, 2), 1)
    assert row.failed.startswith("UserError: the model is a Linear") and row.problems() == [row.failed]
    assert row.line().count("|") == 10
