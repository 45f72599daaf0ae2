"""Settings for the whole suite."""

from __future__ import annotations

import os
import sys

import pytest
from fixtures.own_process import elsewhere
from hypothesis import settings

from fimaq_deploy.engines.cuda import no_gpu

# The same examples in every run. `--hypothesis-profile=default` looks for other ones.
settings.register_profile("steady", derandomize=True)
settings.load_profile("steady")

# The models here are tiny: a second thread costs more than it brings, most of all on a busy machine. Set before torch
# is imported, and inherited by the processes that tests start.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Triton's kernels run without a GPU in its interpreter, which it asks for when it is imported.
if no_gpu():
    os.environ.setdefault("TRITON_INTERPRET", "1")


collect_ignore = elsewhere()

# Files that take a minute or more start first: where several processes share the suite, none of them comes last.
LONG = (
    "test_documents.py",
    "test_other_devices.py",
    "test_parallel.py",
    "test_module_builds.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.path.name not in LONG)


@pytest.fixture(autouse=True)
def denormal_numbers() -> None:
    """The first session of ONNX Runtime lets its thread flush them, which is no other test's business."""
    if "torch" in sys.modules:
        sys.modules["torch"].set_flush_denormal(False)


pytest_plugins = [
    "fixtures.browser",
    "fixtures.drawn",
    "fixtures.exported",
    "fixtures.image_files",
    "fixtures.perceptron",
    "fixtures.tiny_models",
    "fixtures.road",
    "fixtures.chains",
    "fixtures.insides",
    "fixtures.user_models",
    "fixtures.artifacts",
    "fixtures.bare_onnx",
    "fixtures.layers",
]
