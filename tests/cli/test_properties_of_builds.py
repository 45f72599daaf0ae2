"""Whatever is asked of a build that is there: an exit code of 0, 1 or 2, and one line where it is 2.

As `test_properties.py`, but nothing is missing in the end: the options alone decide. Places to write to are drawn from
those that may be written to.
"""

from __future__ import annotations

import io
import socket
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import pytest
import typer
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from fimaq_deploy.cli import app, main

COMMANDS: dict[str, Any] = typer.main.get_command(app).commands  # type: ignore[attr-defined]
WORDS = ["", " ", "\0", "\ud800", "\n", "é" * 200, "n" * 300, "m/" * 3000, "%s%n", "$(x)", "*", "~", "a:b", "a/b", "="]
WORDS += [
    "nan",
    "inf",
    "-inf",
    "-1",
    "0",
    "1",
    "2",
    "8",
    "1e400",
    "1_000",
    "٣",
    "9" * 25,
    "1.5",
    "cpu",
    "true",
    "missing",
]
WORDS += [
    "onnxruntime-cpu",
    "openvino-cpu",
    "tensorrt",
    "tensorrt-rtx",
    "tensorflow",
    "tar",
    "hf",
    "oci",
    "triton",
    "zip",
]
PLACES = ["", " ", "\0", "n" * 300, "m/" * 3000, "/dev/null", "/dev/full", "thesis", "thesis/chapter.tex/x", "pictures"]
WRITING = ("--json", "--out", "--html", "--markdown", "--junit")
values = st.sampled_from(WORDS) | st.text(max_size=12) | st.integers(-9, 99).map(str) | st.floats().map(str)
# What each call begins and ends with, and how often it is tried.
CALLS = {
    "predict": (["build", "pictures"], [], 150),
    "package": (["build"], ["--format", "tar"], 150),
    "history": (["build"], [], 150),
    "compare": (["build", "build"], [], 150),
    "lint": (["build/model.onnx"], ["--target", "onnxruntime-cpu"], 100),
    "verify": (["build"], [], 50),
    "serve": (["build"], ["--port", "TAKEN"], 100),
}


@st.composite
def calls(draw: st.DrawFn, name: str) -> list[str]:
    first, last, _ = CALLS[name]
    words = [name, *first, *draw(st.sampled_from([last, []] if last and name == "package" else [last]))]
    middle = []
    for parameter in draw(st.lists(st.sampled_from(COMMANDS[name].params), max_size=3)):
        option = max(parameter.opts, key=len)
        if option == "--help" or not option.startswith("-"):
            continue
        drawn = draw(st.sampled_from(PLACES) if option in WRITING else values)
        middle += [option] if getattr(parameter, "is_flag", False) else [option, drawn]
    return [name, *middle, *words[1:]]


@pytest.fixture
def place(artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The current folder of every call: a build, pictures, and what no command may touch."""
    folder = tmp_path / "place"
    (folder / "thesis").mkdir(parents=True)
    (folder / "thesis" / "chapter.tex").write_text("precious")
    (folder / "pictures").mkdir()
    Image.new("RGB", (9, 9), "red").save(folder / "pictures" / "a.png")
    artifact.rename(folder / "build")
    before = {path.name: path.read_bytes() for path in (folder / "build").iterdir()}
    monkeypatch.chdir(folder)
    yield folder
    assert (folder / "thesis" / "chapter.tex").read_text() == "precious"
    assert {path.name: path.read_bytes() for path in (folder / "build").iterdir()} == before
    assert {path.name for path in folder.iterdir()} <= {"build", "pictures", "thesis", "build.tar"}


@pytest.fixture
def taken() -> Iterator[str]:
    """A port on which somebody listens, so that no server begins."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield str(listener.getsockname()[1])


@pytest.mark.slow
@pytest.mark.parametrize("name", CALLS)
def test_whatever_is_asked_of_a_build_is_done_or_refused_in_one_line(name: str, place: Path, taken: str) -> None:
    @settings(max_examples=CALLS[name][2], deadline=None, suppress_health_check=list(HealthCheck))
    @given(calls(name))
    def check(words: list[str]) -> None:
        said = io.StringIO()
        (place / "build.tar").unlink(missing_ok=True)
        with redirect_stderr(said), redirect_stdout(io.StringIO()), pytest.raises(SystemExit) as end:
            main([taken if word == "TAKEN" else word for word in words])
        told = said.getvalue()
        assert end.value.code in (0, 1, 2) and "Traceback" not in told, told
        refusals = [line for line in told.splitlines() if line.startswith("error: ")]
        assert len(refusals) == (end.value.code == 2), told

    check()
