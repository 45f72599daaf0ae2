"""`fimaq-deploy serve`."""

from __future__ import annotations

from typing import Annotated

import typer

from fimaq_deploy.cli.console import stderr


def serve(
    artifacts: Annotated[list[str], typer.Argument(metavar="[NAME=]ARTIFACT...", help="Builds, or ONNX files.")],
    host: Annotated[str, typer.Option(help="Where it is heard; by default on this machine alone.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0 is any that is free.")] = 8000,
    target: Annotated[str | None, typer.Option(help="What runs them; default: the best that runs here.")] = None,
    threads: Annotated[int | None, typer.Option(help="Of a CPU; default: the runtime's choice.")] = None,
    batch: Annotated[int, typer.Option(help="The most images at once.")] = 16,
    delay_ms: Annotated[float, typer.Option(help="How long a batch that is not full waits for more.")] = 1.0,
    original: Annotated[bool, typer.Option("--original", help="Show the FP32 answer on the page too.")] = False,
    max_mb: Annotated[float, typer.Option(help="The largest request.")] = 64.0,
    max_requests: Annotated[int, typer.Option(help="The most requests that run at once.")] = 256,
    max_seconds: Annotated[float, typer.Option(help="The longest that one may take.")] = 30.0,
) -> None:
    """Serve builds by the Open Inference Protocol v2, with metrics and a page to drop an image on. Needs no torch."""
    from fimaq_deploy.errors import within
    from fimaq_deploy.serving.limits import Limits
    from fimaq_deploy.serving.server import serve as run_server

    limits = Limits(
        body_bytes=int(within("--max-mb", max_mb, 0.001, 4096) * 2**20),
        seconds=within("--max-seconds", max_seconds, 0.01, 86400),
        running=int(within("--max-requests", max_requests, 1, 1_000_000)),
    )
    run_server(
        artifacts,
        host=host,
        port=port,
        target=target,
        threads=threads,
        batch=batch,
        delay_ms=delay_ms,
        original=original,
        limits=limits,
        tell=lambda line: stderr.print(line, soft_wrap=True),
    )
