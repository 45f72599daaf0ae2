"""Targets made of others: what several of them execute, and what one does on its newer GPUs alone."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import reduce

from fimaq_deploy.errors import UserError
from fimaq_deploy.target.kernels import ComputeCapability, Kernel
from fimaq_deploy.target.table import TARGETS, Target


def combine(targets: Iterable[Target]) -> Target:
    """The strictest rules of several targets: what every one of them executes.

    Attention is in integers as soon as one target is faster so, a pooled head in floats. The high-precision type is the
    first target's; it does not change what is learned.

    Raises:
        UserError: no target was given.
    """
    found: Sequence[Target] = tuple(targets)
    if not found:
        raise UserError(f"no target was given: name at least one of {', '.join(TARGETS)}")
    return Target(
        name="+".join(dict.fromkeys(target.name for target in found)),
        high_precision=found[0].high_precision,
        kernels=reduce(_both, (target.kernels for target in found)),
        lint_rules=frozenset.union(*(target.lint_rules for target in found)),
        clip="integers" if all(target.clip == "integers" for target in found) else "floats",
        splits_products=any(target.splits_products for target in found),
        compute_capability=_oldest(found),
        patches="product" if all(target.patches == "product" for target in found) else "convolution",
    )


def _both(left: tuple[Kernel, ...], right: tuple[Kernel, ...]) -> tuple[Kernel, ...]:
    others = {(one.format, one.operator): one for one in right}
    found = [one.both(other) for one in left if (other := others.get((one.format, one.operator)))]
    return tuple(one for one in found if one.weights or one.operator == "attention")


def since(target: Target, sm: int | None) -> Target:
    """A target whose engines are for GPUs from a generation on, such as 89; the target as it is for None."""
    if sm is None:
        return target
    major, minor = divmod(sm, 10)
    return replace(target, compute_capability=(major, minor))


def _oldest(targets: Sequence[Target]) -> ComputeCapability | None:
    """The oldest GPU that any is for; None where nobody has said it of one whose kernels depend on that."""
    said = [target.compute_capability for target in targets if any(one.since for one in target.kernels)]
    return None if None in said else min((one for one in said if one is not None), default=None)
