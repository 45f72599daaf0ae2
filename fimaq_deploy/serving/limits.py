"""What one client of a server may take."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """body_bytes, seconds: of one request. running: requests at once. queued: images that wait for one model.

    most_pixels: of an encoded image.
    """

    body_bytes: int = 64 * 2**20
    seconds: float = 30.0
    running: int = 256
    queued: int = 1024
    most_pixels: int = 50_000_000
