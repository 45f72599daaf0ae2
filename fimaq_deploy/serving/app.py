"""The addresses of a server.

The protocol's: `/v2`, `/v2/health/live`, `/v2/health/ready`, `/v2/models/NAME`, `/v2/models/NAME/ready`,
`/v2/models/NAME/infer`, each also with `/versions/1`, and `/v2/repository/index`. Ours: `/` a page to drop an image on,
`/models/NAME/contract`, `/models/NAME/predict` an encoded image to classes, objects or a map, and `/metrics`.

Nothing of a request leads into the file system: models are those that were loaded, by name.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from fimaq_deploy.errors import UserError
from fimaq_deploy.serving.batching import Busy
from fimaq_deploy.serving.limits import Limits
from fimaq_deploy.serving.metrics import Metrics
from fimaq_deploy.serving.models import VERSION, Served, run_original, run_whole
from fimaq_deploy.serving.tensors import HEADER, Refused, read_request, write_response
from fimaq_deploy.version import __version__

PAGE = Path(__file__).with_name("page.html")
_EXTENSIONS = ["binary_tensor_data", "model_repository"]
_LOCKED = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self' 'unsafe-inline'; style-src 'unsafe-inline'; "
    "img-src blob: data:; connect-src 'self'; frame-ancestors 'none'; base-uri 'none'",
    "X-Content-Type-Options": "nosniff",
}
_log = logging.getLogger(__name__)

Answer = Callable[[Request, Served], Awaitable[Response]]


class App:
    """What answers requests. models: by name."""

    def __init__(self, models: Mapping[str, Served], metrics: Metrics, limits: Limits) -> None:
        self.models, self.metrics, self.limits = models, metrics, limits
        self._running = 0

    def starlette(self, hosts: Sequence[str] = ("*",)) -> Starlette:
        """hosts: names under which the server may be asked; others are refused, so that no web page gets at it."""
        model = "/v2/models/{name}"
        routes = [
            Route("/", self.page),
            Route("/metrics", self.show_metrics),
            Route("/models/{name}/contract", self.contract),
            Route("/models/{name}/predict", self.predict, methods=["POST"]),
            Route("/v2", self.server),
            Route("/v2/health/live", self.live),
            Route("/v2/health/ready", self.live),
            Route("/v2/repository/index", self.index, methods=["POST"]),
        ]
        for place in (model, f"{model}/versions/{{version}}"):
            routes += [
                Route(place, self.metadata),
                Route(f"{place}/ready", self.ready),
                Route(f"{place}/infer", self.infer, methods=["POST"]),
            ]
        return Starlette(
            routes=routes,
            lifespan=self._lifespan,
            middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=list(hosts))],
            exception_handlers={HTTPException: _http_error},
        )

    @asynccontextmanager
    async def _lifespan(self, _: Starlette) -> AsyncIterator[None]:
        for served in self.models.values():
            served.batcher.start()
        yield
        await asyncio.gather(*(served.batcher.close() for served in self.models.values()))

    # ---- what is there

    async def page(self, _: Request) -> Response:
        return HTMLResponse(PAGE.read_text(encoding="utf-8"), headers=_LOCKED)

    async def show_metrics(self, _: Request) -> Response:
        return Response(self.metrics.text(), media_type="text/plain; version=0.0.4")

    async def server(self, _: Request) -> Response:
        return JSONResponse({"name": "fimaq-deploy", "version": __version__, "extensions": _EXTENSIONS})

    async def live(self, _: Request) -> Response:
        return Response()

    async def index(self, _: Request) -> Response:
        return JSONResponse([{"name": name, "version": VERSION, "state": "READY"} for name in self.models])

    async def metadata(self, request: Request) -> Response:
        return JSONResponse(self._model(request).metadata())

    async def ready(self, request: Request) -> Response:
        self._model(request)
        return Response()

    async def contract(self, request: Request) -> Response:
        served = self._model(request)
        engine = {"engine": served.predictor.choice.sentence, "original": served.original is not None}
        return JSONResponse({**served.predictor.contract.document(), **engine})

    # ---- what is computed

    async def infer(self, request: Request) -> Response:
        return await self._counted(request, self._infer)

    async def predict(self, request: Request) -> Response:
        return await self._counted(request, self._predict)

    async def _infer(self, request: Request, served: Served) -> Response:
        if request.headers.get("Content-Encoding", "identity") != "identity":
            raise Refused(415, "Content-Encoding: this server takes requests as they are")
        body = await self._body(request)
        asked = read_request(body, request.headers.get(HEADER), served.contract)
        if served.head is not None and len(asked.images) != 1:
            raise Refused(400, f"{len(asked.images)} images: this model answers one a request; send several requests")
        outputs = await run_whole(served, await served.batcher(asked.images))
        data, header = write_response(asked, outputs, served.name)
        if header is None:
            return Response(data, media_type="application/json")
        return Response(data, media_type="application/octet-stream", headers={HEADER: str(header)})

    async def _predict(self, request: Request, served: Served) -> Response:
        body = await self._body(request)
        loop = asyncio.get_running_loop()
        started = time.perf_counter()
        try:
            image, place = await loop.run_in_executor(None, served.prepare.placed, body)
        except UserError as error:
            raise Refused(400, str(error)) from None
        prepared, images = time.perf_counter(), image[None]
        answer = await run_whole(served, await served.batcher(images))
        done = time.perf_counter()
        found = await loop.run_in_executor(None, served.answer, answer, place)
        times = {"prepare_ms": 1000 * (prepared - started), "run_ms": 1000 * (done - prepared)}
        document: dict[str, Any] = {"model": served.name, **found, **times}
        if served.original is not None:
            whole = await run_whole(served, await run_original(served, images))
            document["original"] = await loop.run_in_executor(None, served.answer, whole, place)
        return JSONResponse(document)

    async def _counted(self, request: Request, answer: Answer) -> Response:
        """With every limit kept, whatever happens told in the protocol's form, and counted."""
        served = self._model(request)
        started = time.perf_counter()
        response = await self._limited(request, served, answer)
        self.metrics.request(served.name, response.status_code, time.perf_counter() - started)
        return response

    async def _limited(self, request: Request, served: Served, answer: Answer) -> Response:
        if self._running >= self.limits.running:
            return _error(503, "as many requests run as may: try again", {"Retry-After": "1"})
        self._running += 1
        self.metrics.running(self._running)
        try:
            return await asyncio.wait_for(answer(request, served), self.limits.seconds)
        except Refused as error:
            return _error(error.status, str(error))
        except Busy:
            return _error(503, "as many images wait as may: try again", {"Retry-After": "1"})
        except (TimeoutError, asyncio.TimeoutError):
            return _error(504, f"no answer within {self.limits.seconds:g} s")
        except ClientDisconnect:
            return Response(status_code=499)
        except Exception:  # of an engine: the server goes on, and its log has the rest
            _log.exception("model %s", served.name)
            return _error(500, "the engine failed: see the server's log")
        finally:
            self._running -= 1
            self.metrics.running(self._running)

    async def _body(self, request: Request) -> bytes:
        most = self.limits.body_bytes
        length = request.headers.get("Content-Length", "0")
        if length.isascii() and length.isdigit() and int(length[:20]) > most:
            raise Refused(413, f"the request has {length[:20]} bytes: expected at most {most}")
        parts, size = [], 0
        async for part in request.stream():
            size += len(part)
            if size > most:
                raise Refused(413, f"the request has more than {most} bytes")
            parts.append(part)
        return b"".join(parts)

    def _model(self, request: Request) -> Served:
        name, version = request.path_params["name"], request.path_params.get("version", VERSION)
        if name not in self.models or version != VERSION:
            raise HTTPException(404, f"no model {name[:100]} in version {version[:20]}: see /v2/repository/index")
        return self.models[name]


def _error(status: int, message: str, headers: Mapping[str, str] | None = None) -> Response:
    text = message.encode("utf-8", "replace").decode()  # what a request holds may be no text
    return JSONResponse({"error": text}, status_code=status, headers=headers)


async def _http_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return _error(error.status_code, error.detail, error.headers)
