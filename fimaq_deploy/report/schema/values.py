"""Numbers that a report may hold, which may come from anywhere, and its records."""

from __future__ import annotations

import math
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field


def _null_unless_finite(value: object) -> object:
    """JSON has no NaN and no infinity."""
    return value if not isinstance(value, float) or math.isfinite(value) else None


# A report may come from anywhere: a gate would pass for a speed-up of zero or a file of less than nothing.
Count = Annotated[int, Field(ge=0, le=2**63 - 1)]
Positive = Annotated[float, Field(ge=1e-9, le=1e12)]  # beyond which ratios of them leave the floats
Difference = Annotated[float | None, BeforeValidator(_null_unless_finite)]


class Part(BaseModel):
    """A record with known fields that stay as they are."""

    model_config = ConfigDict(extra="forbid", frozen=True)
