from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement

import fimaq_deploy
from fimaq_deploy.errors import BUILDER

if sys.version_info >= (3, 11):
    import tomllib
else:  # pytest brings it there
    import tomli as tomllib

ROOT = Path(__file__).parent.parent
HEAVY = ("torch", "torchvision", "timm", "onnx", "onnxruntime", "onnxscript", "onnx_ir", "tensorrt", "tensorrt_rtx")


def run_python(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT).stdout


@pytest.mark.parametrize("first", ["import fimaq_deploy", "import fimaq_deploy.cli", "from fimaq_deploy import Recipe"])
def test_importing_loads_no_framework(first: str) -> None:
    loaded = run_python(f"import sys; {first}; print([name for name in {HEAVY} if name in sys.modules])")
    assert loaded.strip() == "[]"


def test_help_loads_no_framework_and_is_quick() -> None:
    code = (
        "import sys\nfrom fimaq_deploy.cli import main\n"
        "try:\n    main(['build', '--help'])\nexcept SystemExit: pass\n"
        f"sys.exit(any(name in sys.modules for name in {HEAVY}))"
    )
    before = os.times()
    assert "--max-drop" in run_python(code)
    after = os.times()
    spent = after.children_user + after.children_system - before.children_user - before.children_system
    assert spent < 5, "expected about a second of the processor; five leave room for a busy machine"


@pytest.mark.parametrize("name", fimaq_deploy.__all__)
def test_every_public_name_is_there(name: str) -> None:
    assert getattr(fimaq_deploy, name) is not None


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'quantise'"):
        _ = fimaq_deploy.quantise


@pytest.mark.parametrize("stage", ["calibration", "export", "engines"])
def test_the_root_links_point_into_the_package(stage: str) -> None:
    assert (ROOT / stage).resolve() == ROOT / "fimaq_deploy" / stage


def test_nothing_is_pickled() -> None:
    unsafe = ("import pickle", "pickle.load", "weights_only=False", "allow_pickle=True", "torch.save(")
    for path in (ROOT / "fimaq_deploy").rglob("*.py"):
        found = [word for word in unsafe if word in path.read_text(encoding="utf-8")]
        assert not found, f"{path}: {found}"


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def requirements(extra: str) -> set[str]:
    """The distributions that an extra names; those of the core for an empty name."""
    project = tomllib.loads(read("pyproject.toml"))["project"]
    lines = project["optional-dependencies"][extra] if extra else project["dependencies"]
    return {Requirement(line).name for line in lines}


def test_what_runs_a_build_installs_nothing_of_the_builder() -> None:
    assert requirements("") == {"numpy", "pillow", "rich", "typer"}
    assert requirements("runtime") == {"onnxruntime"}


def test_every_package_of_the_builder_is_told_where_it_is_missing() -> None:
    imported = {"onnx-ir": "onnx_ir", "pyyaml": "yaml"}
    brought = {imported.get(name.lower(), name) for name in requirements("build")}
    assert {name for name in brought if not name.startswith("onnxruntime")} == BUILDER


@pytest.mark.parametrize("missing", ["torch", "yaml"])
def test_without_the_builder_a_name_says_what_to_install(missing: str) -> None:
    code = (
        f"import sys; sys.modules[{missing!r}] = None; import fimaq_deploy\n"
        "try: fimaq_deploy.build\n"
        "except ImportError as error: print(error)"
    )
    assert run_python(code).strip() == (
        f"fimaq_deploy.build: this needs {missing}, which is not installed: pip install 'fimaq-deploy[build]'"
    )


def test_the_changelog_begins_with_this_version() -> None:
    newest = re.search(r"^## (\S+)", read("CHANGELOG.md"), re.M)
    assert newest and newest[1] == fimaq_deploy.__version__


def workflow() -> dict[str, Any]:
    return yaml.safe_load(read(".github/workflows/ci.yml"))


def test_the_public_ci_runs_every_python_that_the_package_names() -> None:
    named = set(re.findall(r"Python :: (3\.\d+)", read("pyproject.toml")))
    assert set(workflow()["jobs"]["test"]["strategy"]["matrix"]["python"]) == named
    oldest = re.search(r'requires-python = ">=(3\.\d+)"', read("pyproject.toml"))
    assert oldest and oldest[1] == min(named, key=lambda name: int(name[2:]))


def make_targets(text: str) -> set[str]:
    return set(re.findall(r"(?:^|`|run: )make ([a-z]+(?:-[a-z]+)*)", text, re.M))


@pytest.mark.parametrize("file", ["README.md", "CONTRIBUTING.md", ".ci/run", ".github/workflows/ci.yml"])
def test_make_has_every_target_that_is_named(file: str) -> None:
    has = set(" ".join(re.findall(r"^([a-z][a-z -]*):", read("Makefile"), re.M)).split())
    assert make_targets(read(file)) - has == set()


def test_every_hook_runs_a_tool_of_the_environment() -> None:
    hooks = [hook for repo in yaml.safe_load(read(".pre-commit-config.yaml"))["repos"] for hook in repo["hooks"]]
    assert hooks and all(hook["entry"].startswith(".venv/bin/") and hook["language"] == "system" for hook in hooks)
