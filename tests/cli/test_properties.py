"""Whatever is typed: an exit code of 0, 1 or 2, never a traceback, and one line where it is refused.

Every command is called in this process with values that its own options did not expect. Nothing heavy is reached: each
call holds something that is refused at the latest when the model's weights are to be read.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import pytest
import typer
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fimaq_deploy.cli import app, main

COMMANDS: dict[str, Any] = typer.main.get_command(app).commands  # type: ignore[attr-defined]
NASTY = ["", " ", "\0", "\ud800", "\n", "\x1b[2J", "é" * 200, "n" * 300, "m/" * 3000, "%s%n", "$(x)", "`x`", "*", "~"]
NASTY += ["nan", "inf", "-inf", "NaN", "-1", "0", "1e400", "-1e-400", "1_000", "٣", "0x10", "9" * 25, "9" * 5000, "1.5"]
NASTY += ["/", ".", "..", "/dev/null", "/dev/full", "/dev/zero", "/proc/self/mem", "/proc/self/environ", "/root", "-"]
NASTY += ["a:b", "os:system", "json:loads", ":", "::", "a:", ":b", "antigravity:x", "hf_hub:x", "timm/x", "vit_digits"]
NASTY += ["mps", "meta", "cuda", "cuda:99", "cpu:1", "xpu", "tpu", "cpu", "CPU", "true", "/etc/passwd", "../x"]
NASTY += [
    "{",
    "[",
    "[" * 3000,
    "*a",
    "a: b: c",
    "&a [*a]",
    "a=b",
    "=",
    "weights.bits=3",
    "weights.bits=5",
    "layers={x: 1",
]
NASTY += ["onnxruntime-cpu", "tensorrt", "tensorrt-rtx", "tensorflow", "w8a8", "w4a4", "missing.onnx", "missing.engine"]
NASTY += ["random", "pretrained", "missing.safetensors", "missing.pth", "thesis", "thesis/chapter.tex", "nested.json"]
values = st.sampled_from(NASTY) | st.text(max_size=20) | st.integers().map(str) | st.floats().map(str)
# What each call ends with, so that it is refused in the end; an option that comes twice counts where it stands last.
REFUSED = {
    "build": [["--weights", "missing.safetensors"], ["--out", "thesis"]],
    "sweep": [["missing.yaml"]],
    "bench": [["missing.onnx"]],
    "lint": [["missing.onnx"]],
    "audit": [["missing.onnx"]],
    "parity": [["missing.safetensors"]],
    "compare": [["missing.json", "missing.json"]],
    "predict": [["missing", "missing.png"]],
    "verify": [["missing"]],
    "serve": [["missing"]],
    "package": [["missing", "--format", "tar"]],
    "unpack": [["nested.json"], ["thesis"], ["no/such.tar"]],
    "history": [["missing"]],
}


@st.composite
def calls(draw: st.DrawFn, name: str) -> list[str]:
    """A command with some of its options, each with any value, and arguments of any kind."""
    words = [name]
    for parameter in draw(st.lists(st.sampled_from(COMMANDS[name].params), max_size=4)):
        option = max(parameter.opts, key=len)
        if option == "--help" or not option.startswith("-"):
            continue
        words += [option] if getattr(parameter, "is_flag", False) else [option, draw(values)]
    if name in ("lint", "audit") and "--target" not in words:
        words += ["--target", "tensorrt-rtx"]
    if name == "build" and "--model" not in words:
        words += ["--model", "vit_digits"]
    arguments = draw(st.lists(values.filter(lambda text: not text.startswith("-")), max_size=2))
    return [*words, *arguments, *draw(st.sampled_from(REFUSED[name]))]


@pytest.fixture(scope="module", autouse=True)
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The current folder of every call, with things in it that no command may touch."""
    folder = tmp_path_factory.mktemp("place")
    (folder / "thesis").mkdir()
    (folder / "thesis" / "chapter.tex").write_text("precious")
    (folder / "nested.json").write_text("[" * 100_000)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        yield folder
    assert (folder / "thesis" / "chapter.tex").read_text() == "precious"
    assert sorted(path.name for path in folder.iterdir()) == ["nested.json", "thesis"]


def ended(words: list[str]) -> tuple[int, str]:
    """The exit code and what was said on stderr. Anything but SystemExit is a fault of ours."""
    said = io.StringIO()
    with redirect_stderr(said), redirect_stdout(io.StringIO()), pytest.raises(SystemExit) as end:
        main(words)
    code = end.value.code
    return (code if isinstance(code, int) else 0), said.getvalue()


@pytest.mark.parametrize("name", REFUSED)
def test_whatever_a_command_is_given_is_refused_in_one_line(name: str) -> None:
    @settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
    @given(calls(name))
    def check(words: list[str]) -> None:
        code, said = ended(words)
        assert code in (1, 2), (code, said)
        lines = [line for line in said.splitlines() if line.startswith("error: ")]
        assert len(lines) == 1 and len(lines[0]) < 1000, said
        assert "Traceback" not in said

    check()


def test_every_command_is_called() -> None:
    assert set(REFUSED) == set(COMMANDS) - {"doctor", "recipes"}


@settings(max_examples=100, deadline=None)
@given(st.lists(values, max_size=4))
def test_any_words_at_all_are_a_command_or_one_line(words: list[str]) -> None:
    code, said = ended(words)
    assert code in (0, 2)
    assert len([line for line in said.splitlines() if line.startswith("error: ")]) == (code == 2 and bool(words))


def test_without_a_command_there_is_the_help() -> None:
    shown = io.StringIO()
    with redirect_stdout(shown), redirect_stderr(shown), pytest.raises(SystemExit):
        main([])
    assert "Usage" in shown.getvalue() and "error: " not in shown.getvalue()
