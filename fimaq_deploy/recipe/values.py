"""What a field of a recipe may hold: bits, and numbers that have an end."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError


def _no_truth(value: Any) -> Any:
    """YAML's true is not the number 1."""
    if isinstance(value, bool):
        raise PydanticCustomError("number", "input should be a number")
    return value


def _printable(value: str) -> str:
    if not value.isprintable():
        raise PydanticCustomError("text", "input should be text of one line")
    return value


WeightBits = Literal[2, 3, 4, 6, 8]
ActivationBits = Literal[3, 4, 6, 8, 16]
Name = Annotated[str, Field(min_length=1, max_length=255), AfterValidator(_printable)]
# Every number has an end: beyond these a recipe says something that nobody means, or that overflows on the way.
Fraction = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False), BeforeValidator(_no_truth)]
Positive = Annotated[float, Field(gt=0, le=1e6, allow_inf_nan=False), BeforeValidator(_no_truth)]
NonNegative = Annotated[float, Field(ge=0, le=1e6, allow_inf_nan=False), BeforeValidator(_no_truth)]
Temperature = Annotated[float, Field(ge=1e-3, le=1e6, allow_inf_nan=False), BeforeValidator(_no_truth)]
Count = Annotated[int, Field(ge=1, le=10_000_000), BeforeValidator(_no_truth)]
Number = Annotated[int, Field(ge=0, le=10_000_000), BeforeValidator(_no_truth)]


class Section(BaseModel):
    """Fields that are known and stay as they are."""

    model_config = ConfigDict(extra="forbid", frozen=True)
