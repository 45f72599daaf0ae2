"""Serving builds until somebody stops it."""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from fimaq_deploy.errors import UserError, shown, within

if TYPE_CHECKING:
    from starlette.applications import Starlette

    from fimaq_deploy.serving.limits import Limits

_NEEDED = ("starlette", "uvicorn", "prometheus_client")
_LOCAL = ("127.0.0.1", "localhost", "::1")
_GRACE_S = 10


def create_app(
    artifacts: Sequence[str | Path],
    *,
    target: str | None = None,
    threads: int | None = None,
    batch: int = 16,
    delay_ms: float = 1.0,
    original: bool = False,
    limits: Limits | None = None,
    hosts: Sequence[str] = ("*",),
    tell: Callable[[str], None] = lambda line: None,
) -> Starlette:
    """The server as an ASGI application, for a server of your own. Arguments and errors as of `serve`.

    hosts: names under which it may be asked. tell: called with a line about each model.
    """
    absent = [name for name in _NEEDED if find_spec(name) is None]
    if absent:
        raise UserError(f"{', '.join(absent)} not installed: pip install 'fimaq-deploy[serve]'")
    from fimaq_deploy.serving.app import App
    from fimaq_deploy.serving.limits import Limits
    from fimaq_deploy.serving.metrics import Metrics
    from fimaq_deploy.serving.models import open_models

    if not artifacts:
        raise UserError("nothing to serve: name at least one build")
    held, metrics = limits or Limits(), Metrics()
    models = open_models(
        artifacts,
        metrics,
        held,
        target=target,
        threads=threads,
        batch=batch,
        delay_s=within("delay", delay_ms, 0, 1000) / 1000,
        original=original,
    )
    for name, served in models.items():
        served.predictor.warm_up((1, batch))
        tell(f"{name}: {served.predictor.choice.sentence}")
    return App(models, metrics, held).starlette(hosts)


def serve(
    artifacts: Sequence[str | Path],
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    target: str | None = None,
    threads: int | None = None,
    batch: int = 16,
    delay_ms: float = 1.0,
    original: bool = False,
    limits: Limits | None = None,
    tell: Callable[[str], None] = lambda line: None,
) -> None:
    """Serve builds by the Open Inference Protocol v2 over HTTP until SIGINT or SIGTERM; running requests are finished.

    artifacts: folders of builds or exported ONNX files, each under its model's name, or under another as NAME=PATH.
    host, port: where; by default nobody but this machine gets at it, and 0 is any free port. There is no encryption and
        no password: for others put a proxy in front.
    target: what runs them; None takes the best that runs here. threads: of a CPU.
    batch: the most images at once. delay_ms: how long a batch that is not full waits for more.
    original: load the full-precision file too, and show its answer on the page.
    limits: on size, time and number of requests.
    tell: called with lines for a log.

    Raises:
        UserError: no build, nothing in it that runs here, a port that is taken, or the extra `serve` is not installed.
    """
    within("port", port, 0, 65535)
    hosts = [*_LOCAL, "[::1]"] if host in _LOCAL else ["*"]
    app = create_app(
        artifacts,
        target=target,
        threads=threads,
        batch=batch,
        delay_ms=delay_ms,
        original=original,
        limits=limits,
        hosts=hosts,
        tell=tell,
    )
    import uvicorn

    with _bound(host, port) as place:
        address = f"[{host}]" if ":" in host else host
        tell(f"http://{address}:{place.getsockname()[1]}")
        config = uvicorn.Config(app, log_level="warning", access_log=False, timeout_graceful_shutdown=_GRACE_S)
        server = uvicorn.Server(config)
        try:
            server.run(sockets=[place])
        except KeyboardInterrupt:  # it is raised again when all is answered
            if not server.should_exit:
                raise


def _bound(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    place = socket.socket(family)
    try:
        place.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        place.bind((host, port))
        place.listen(1024)
    except (OSError, TypeError, UnicodeError) as error:  # the last two: a name that no host can have
        place.close()
        reason = getattr(error, "strerror", None) or error
        known = error.errno if isinstance(error, OSError) and not isinstance(error, socket.gaierror) else None
        wanted = "host" if known in (None, errno.EADDRNOTAVAIL) else "port"
        raise UserError(f"{shown(host)}:{port} cannot be served ({reason}): name another {wanted}") from None
    return place
