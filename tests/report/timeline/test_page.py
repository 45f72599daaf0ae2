from __future__ import annotations

from pathlib import Path

from fimaq_deploy.report.timeline.page import write_history
from fimaq_deploy.report.timeline.records import Figure, History, Point, Series

VALUES = (97.5, 97.4, 97.6, 97.5, 97.45, 97.55, 95.0, 95.1, 94.9, 95.05)


def series(model: str = "vit & <co>") -> Series:
    points = tuple(Point(f"build/{n}", f"2026-01-{n + 1:02}", v, (v - 1, v + 1)) for n, v in enumerate(VALUES))
    return Series(model, "w4a8", "ONNX Runtime CPU", Figure("accuracy", "top-1", "%", True, False), points)


def test_the_page_shows_every_build_and_says_what_is_worse(tmp_path: Path) -> None:
    write_history(History((series(), series("swin")), 10), tmp_path / "history.html", "fimaq-deploy history build")
    page = (tmp_path / "history.html").read_text()
    assert "The newest change is for the worse" in page and "vit &amp; &lt;co&gt;" in page and "<co>" not in page
    assert page.count("<svg") == 2 and page.count("build/9") >= 2
    assert "97.50 became 95.01" in page


def test_without_a_change_it_says_so(tmp_path: Path) -> None:
    steady = Series("m", "r", "row", series().figure, series().points[:6])
    write_history(History((steady,), 6), tmp_path / "history.html", "x")
    assert "No newest change is for the worse" in (tmp_path / "history.html").read_text()
