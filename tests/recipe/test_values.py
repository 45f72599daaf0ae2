from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, get_args, get_origin

import pytest
from pydantic import BaseModel

from fimaq_deploy.errors import UserError
from fimaq_deploy.recipe import Recipe

ENTIRE = ["scale_search.images", "scale_search.candidates", "reconstruction.images", "reconstruction.batch_size"]
ENTIRE += ["reconstruction.iterations", "reconstruction.patience", "reconstruction.rank", "tuning.iterations"]
ENTIRE += ["reconstruction.fisher_images", "reconstruction.quick_iterations", "tuning.batch_size"]
ENTIRE += ["tuning.quick_iterations"]
REAL = [f"reconstruction.{name}" for name in ("weight_lr", "scale_lr", "weight_scale_lr", "other_lr", "qdrop")]
REAL += [f"reconstruction.{name}" for name in ("temperature", "low_rank_weight", "diagonal_weight", "rounding_weight")]
REAL += [f"tuning.{name}" for name in ("weight_lr", "scale_lr", "other_lr", "temperature", "feature_weight", "mixing")]
REAL += ["reconstruction.warm_up", "reconstruction.long_rates"]


def numbers(model: type[BaseModel] = Recipe, prefix: str = "") -> Iterator[str]:
    """Every field of a recipe that takes any number."""
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from numbers(field.annotation, f"{prefix}{name}.")
        elif {int, float} & {kind for one in (field.annotation, *get_args(field.annotation)) for kind in bare(one)}:
            yield f"{prefix}{name}"


def bare(annotation: Any) -> tuple[Any, ...]:
    """A type without what is annotated to it."""
    return get_args(annotation)[:1] if get_origin(annotation) is Annotated else (annotation,)


def test_the_lists_of_numbers_are_complete() -> None:
    assert sorted(numbers()) == sorted([*ENTIRE, *REAL])


@pytest.mark.parametrize("field", [*ENTIRE, *REAL])
@pytest.mark.parametrize("value", [".nan", ".inf", "-.inf", "1e400", "-1", "9" * 30, "0x" + "f" * 5000, "true", "[1]"])
def test_no_number_is_endless(field: str, value: str) -> None:
    with pytest.raises(UserError, match=f"field '{field}'") as raised:
        Recipe.load("w8a8").with_settings([f"{field}={value}"])
    assert "\n" not in str(raised.value)
    assert len(str(raised.value)) < 300
