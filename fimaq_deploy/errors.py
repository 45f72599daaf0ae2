"""The one error a user can cause, and the words that its messages share.

Everything else that is raised is our bug and keeps its traceback; being stopped from outside is no error at all.
"""

from __future__ import annotations

from math import inf

_SHOWN = 80

# What the extra `build` installs, as it is imported; `runtime` does without.
BUILDER = frozenset(
    {"jinja2", "matplotlib", "onnx", "onnx_ir", "onnxscript", "polygraphy"}
    | {"pydantic", "safetensors", "timm", "torch", "torchvision", "yaml"}
)


class UserError(Exception):
    """Bad input. The message is one line: the thing, what was expected, what came, and what to do.

    The command line prints it and exits with code 2. A name in it may hold a line break; the message does not.
    """

    def __str__(self) -> str:
        text = super().__str__()
        return text if text.isprintable() else "".join(each if each.isprintable() else " " for each in text)


def without_builder(error: BaseException) -> str | None:
    """What a user is told where a package is missing that the builder brings; None for any other error."""
    missing = (error.name or "").partition(".")[0] if isinstance(error, ModuleNotFoundError) else ""
    if missing not in BUILDER:
        return None
    return f"this needs {missing}, which is not installed: pip install 'fimaq-deploy[build]'"


class Stopped(KeyboardInterrupt):
    """Ctrl-C or a request to end, with one line that says what is kept and how to go on."""


def non_negative(name: str, value: float) -> float:
    """`value`, where it is a finite number of at least zero. NaN is none.

    Raises:
        UserError: it is something else. `name` is how the user called it.
    """
    if not _is_number(value) or not 0 <= value < inf:
        raise UserError(f"{name} {shown(value)}: expected a number of at least 0")
    return value


def within(name: str, value: float, least: float, most: float) -> float:
    """`value`, where it is a number in [least, most]. NaN is in no range.

    Raises:
        UserError: it is something else. `name` is how the user called it.
    """
    if not _is_number(value) or not least <= value <= most:
        raise UserError(f"{name} {shown(value)}: expected {_number(least)} to {_number(most)}")
    return value


def shown(value: object, *, quoted: bool = False, most: int = _SHOWN) -> str:
    """What a user gave, short enough for a message of one line, however large or deep it is. quoted: text as Python.

    What is too long loses its middle: a path is known by its end.
    """
    try:
        text = " ".join((value if isinstance(value, str) and not quoted else repr(value)).split())
    except (ValueError, RecursionError):  # an integer of more digits than Python prints, a nest without an end
        return f"a very large {type(value).__name__}"
    return text if len(text) <= most else f"{text[: most // 2 - 1]}…{text[-(most // 2) :]}"


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _number(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:g}"
