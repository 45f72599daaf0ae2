from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fimaq_deploy.errors import UserError
from fimaq_deploy.models.factory import current_directory_importable, find_factory, find_function


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "factory_mine.py").write_text("def small():\n    return 7\n\nSIZE = 3\n")
    (tmp_path / "factory_broken.py").write_text("import no_such_package_at_all\n")
    yield
    for name in ("factory_mine", "factory_broken"):
        sys.modules.pop(name, None)


def test_a_module_of_the_current_folder_is_found_and_the_path_is_put_back() -> None:
    before = list(sys.path)
    with current_directory_importable():
        assert find_factory("factory_mine:small")() == 7
    assert sys.path == before


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("factory_mine", "model 'factory_mine': expected package.module:factory"),
        ("factory_mine:", "expected package.module:factory"),
        ("fac tory:small", "expected package.module:factory"),
        ("factory_nowhere:small", "no module 'factory_nowhere' in"),
        ("factory_mine:smal", "has no function 'smal'; did you mean 'small'?"),
        ("factory_mine:SIZE", "module 'factory_mine' has no function 'SIZE'"),
    ],
)
def test_what_is_not_there_is_one_line(name: str, message: str) -> None:
    with current_directory_importable(), pytest.raises(UserError, match=re.escape(message)):
        find_factory(name)


def test_what_the_users_own_code_raises_keeps_its_traceback() -> None:
    with current_directory_importable(), pytest.raises(ModuleNotFoundError, match="no_such_package_at_all"):
        find_function("factory_broken:small", "figure", "module:function")
