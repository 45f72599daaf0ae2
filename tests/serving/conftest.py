"""A server of the small artifact on a port of its own, in this process."""

from __future__ import annotations

import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fixtures.artifacts import add_head

uvicorn = pytest.importorskip("uvicorn")
pytest.importorskip("starlette")
pytest.importorskip("prometheus_client")

from fimaq_deploy.serving.server import create_app  # noqa: E402


class Running:
    """address: host and port. artifact: what it serves."""

    def __init__(self, artifact: Path, others: list[str] | None = None, **options: Any) -> None:
        self.artifact = artifact
        self.place = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self.place.getsockname()[1]}"
        app = create_app(
            [artifact, *(others or [f"second={artifact}"])], target="onnxruntime-cpu", threads=1, **options
        )
        self.server = uvicorn.Server(uvicorn.Config(app, log_level="error"))
        self._thread = threading.Thread(target=self.server.run, kwargs={"sockets": [self.place]}, daemon=True)

    def __enter__(self) -> Running:
        self._thread.start()
        while not self.server.started:
            time.sleep(0.01)
        return self

    def __exit__(self, *_: object) -> None:
        self.server.should_exit = True
        self._thread.join(20)
        assert not self._thread.is_alive()


@pytest.fixture(scope="module")
def served(_built: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    artifact = Path(shutil.copytree(_built, tmp_path_factory.mktemp("served") / "artifact"))
    with Running(artifact, original=True) as running:
        yield running


@pytest.fixture(scope="module")
def with_heads(_built: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A detector, `tiny`, and a segmenter, `segmenter`."""
    home = tmp_path_factory.mktemp("heads")
    detector, segmenter = (
        add_head(Path(shutil.copytree(_built, home / kind)), kind) for kind in ("detection", "segmentation")
    )
    with Running(detector, others=[f"segmenter={segmenter}"], original=True) as running:
        yield running


@pytest.fixture
def serving(artifact: Path) -> Callable[..., Running]:
    """`serving(**options)`: one of your own; of another build with `folder`."""
    return lambda folder=artifact, **options: Running(folder, **options)
