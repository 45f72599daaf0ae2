from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fimaq_deploy.errors import UserError
from fimaq_deploy.files.reading import parse_yaml, read_text


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a: {b: [1, 2.5, x, null, true]}", {"a": {"b": [1, 2.5, "x", None, True]}}),
        ("", None),
        ("1e-3", "1e-3"),
        ("base: &b {x: 1}\nmore: {<<: *b, y: 2}", {"base": {"x": 1}, "more": {"x": 1, "y": 2}}),
        ("a: &l [1, 2]\nb: *l", {"a": [1, 2], "b": [1, 2]}),
    ],
)
def test_what_settings_are_written_in_is_read(text: str, value: Any) -> None:
    assert parse_yaml(text, "recipe x") == value


def test_a_nest_within_reason_is_read() -> None:
    assert parse_yaml("[" * 50 + "]" * 50, "recipe x")


LAUGHS = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "\n".join(
    f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 10)}]" for level in range(1, 12)
)
MERGES = "a0: &a0 {x: 1}\n" + "\n".join(
    f"a{level}: &a{level} {{<<: [{', '.join([f'*a{level - 1}'] * 10)}]}}" for level in range(1, 12)
)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("a: [1", "line 1, column 6"),
        ("\ta: 1", "line 1, column 1"),
        ("a: b: c", "mapping values are not allowed"),
        ("*nowhere", "undefined alias"),
        ("&a [*a]", "more than 100,000 values"),
        ("a: 1\na: 2", "key 'a' is given twice"),
        ("{a: {b: 1, b: 1}}", "key 'b' is given twice"),
        (LAUGHS, "more than 100,000 values"),
        (MERGES, "more than 100,000 values"),
        ("[" * 3000, "nested more than 50 deep"),
        ("[" * 3000 + "]" * 3000, "nested more than 50 deep"),
        ("{a: " * 3000 + "1" + "}" * 3000, "nested more than 50 deep"),
        ("- " * 3000 + "1", "nested more than 50 deep"),
        ("? " * 3000 + "1", "nested more than 50 deep"),
        ("!!python/object/apply:os.system [ls]", "could not determine a constructor"),
        ("!!python/name:os.system", "could not determine a constructor"),
        ("!mine 5", "could not determine a constructor"),
        ("a\0b", "special characters are not allowed"),
        ("1" * 5000, "4300"),
        ("2020-13-45", "month must be in 1..12"),
        ("!!bool maybe", "maybe"),
        ("!!int x", "invalid literal"),
        ("!!float ''", ""),
        ("!!timestamp x", ""),
        ("!!binary é", "base64"),
        ("{[1]: 2}", "unhashable"),
        ("a: 1\n--- \nb: 2", "another document"),
        ("%YAML 9.9\n--- 1", "incompatible"),
        ("@", "cannot start any token"),
        ("'unended", "unexpected end of stream"),
        ("\ud800", "special characters are not allowed"),
    ],
)
def test_anything_else_is_one_line(text: str, reason: str) -> None:
    with pytest.raises(UserError, match=r"^recipe x is not YAML: ") as raised:
        parse_yaml(text, "recipe x")
    assert reason in str(raised.value)
    assert "\n" not in str(raised.value)
    assert len(str(raised.value)) < 200


@pytest.mark.parametrize("data", ["naïve: 1".encode(), "naïve: 1".encode("utf-8-sig")])
def test_text_is_utf_8_with_or_without_its_mark(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "recipe.yaml").write_bytes(data)
    assert read_text(tmp_path / "recipe.yaml", "recipe") == "naïve: 1"


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("missing", "no such file"),
        ("folder", "is a directory"),
        ("n" * 256, "file name too long"),
        ("nul\0byte", "no name of a file"),
        ("latin", "not UTF-8 text (byte 2)"),
        ("utf16", "not UTF-8 text (byte 0)"),
        ("large", "larger than 16 MB"),
        ("/dev/zero", "larger than 16 MB"),
        ("loop", "too many levels of symbolic links"),
    ],
)
def test_what_cannot_be_read_is_one_line(tmp_path: Path, name: str, reason: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "latin").write_bytes("naïve".encode("latin-1"))
    (tmp_path / "utf16").write_bytes("naïve".encode("utf-16"))
    (tmp_path / "large").write_bytes(bytes(16 * 2**20 + 1))
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(UserError, match="recipe") as raised:
        read_text(tmp_path / name, "recipe")
    assert reason in str(raised.value)
    assert "\n" not in str(raised.value)
    assert len(str(raised.value)) < 250
