"""What Prometheus reads of a server."""

from __future__ import annotations

from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10)
_IMAGES = (1, 2, 4, 8, 16, 32, 64, 128)


class Metrics:
    """Requests by model and status, their seconds, the engine's batches and their seconds, and who waits."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        given: dict[str, Any] = {"registry": self._registry, "namespace": "fimaq"}
        self._requests = Counter("requests", "Requests for inference.", ("model", "status"), **given)
        self._seconds = Histogram("request_seconds", "Of requests.", ("model",), buckets=_SECONDS, **given)
        self._batches = Histogram("batch_images", "Images in a batch.", ("model",), buckets=_IMAGES, **given)
        self._engine = Histogram("engine_seconds", "Of batches.", ("model",), buckets=_SECONDS, **given)
        self._running = Gauge("running_requests", "Requests that are being answered.", **given)

    def request(self, model: str, status: int, seconds: float) -> None:
        self._requests.labels(model, str(status)).inc()
        self._seconds.labels(model).observe(seconds)

    def batch(self, model: str, images: int, seconds: float) -> None:
        self._batches.labels(model).observe(images)
        self._engine.labels(model).observe(seconds)

    def running(self, count: int) -> None:
        self._running.set(count)

    def text(self) -> bytes:
        """In Prometheus' own format."""
        return generate_latest(self._registry)
