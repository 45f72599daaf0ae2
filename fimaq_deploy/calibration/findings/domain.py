"""Whether the images of the evaluation are of the domain of those that scales were searched on.

A grid is chosen for the values that calibration images make: the search cuts off a few of them for finer steps, and
learning moves that share. Images of another kind make larger values, and more of them lie beyond the grid; so the share
that is cut on evaluation images, beside the share on calibration images, says how far the two are apart.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from fimaq_deploy.calibration.findings.usage import GridUse

# What images of one kind stay below (measured, docs/log "calibration domain"): points of clipped values, beyond so many
# times the share of the calibration images.
POINTS, TIMES = 0.5, 2.0


def with_evaluation(grids: Sequence[GridUse], shares: Mapping[str, float]) -> list[GridUse]:
    """The same with what is clipped on evaluation images. shares: percent by tensor, of activations."""
    return [
        replace(use, evaluated=shares[use.name]) if use.kind == "activation" and use.name in shares else use
        for use in grids
    ]


def excess(use: GridUse) -> float:
    """Points that are clipped on evaluation images beyond what calibration images explain; 0 where none are."""
    return 0.0 if use.evaluated is None else max(0.0, use.evaluated - TIMES * use.clipped)


def domain_warning(grids: Sequence[GridUse]) -> str | None:
    """A sentence where the evaluation images are of another domain, with the tensors that say so most."""
    beyond = sorted((use for use in grids if excess(use) > POINTS), key=excess, reverse=True)
    if not beyond:
        return None
    seen = sum(use.evaluated is not None for use in grids)
    told = ", ".join(f"{use.name} {use.evaluated:.2g} % (calibration {use.clipped:.2g} %)" for use in beyond[:3])
    return (
        f"the evaluation images reach beyond the calibrated ranges in {len(beyond)} of {seen} tensors, which clip of "
        f"{told}; calibrate on images of the kind that is evaluated"
    )
