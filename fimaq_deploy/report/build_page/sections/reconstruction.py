"""What learning did to the error of each block."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from fimaq_deploy.report.build_page import charts
from fimaq_deploy.report.page.canvas import list_height
from fimaq_deploy.report.page.parts import Exhibit, Section
from fimaq_deploy.report.schema import Block, Report

_JOINT_TUNING = "joint tuning"  # the one record of a build that is not of a block
_ABOUT = (
    "Blocks are learned one after the other, each on the outputs of the quantized blocks before it. Some recipes end "
    "in a joint tuning of all blocks, some only for an encoder inside of a model."
)


def reconstruction(report: Report) -> Section:
    found = (_block_errors(report.blocks), _convergence(report.blocks))
    exhibits = tuple(exhibit for exhibit in found if exhibit is not None)
    return Section("reconstruction", "Reconstruction", f"{_ABOUT} {_tuned(report.blocks)}", exhibits)


def _tuned(blocks: Sequence[Block]) -> str:
    iterations = sum(block.iterations for block in blocks if block.name == _JOINT_TUNING)
    return f"Here it took {iterations:,} iterations." if iterations else "Here there was none."


def _block_errors(blocks: Sequence[Block]) -> Exhibit | None:
    if not blocks:
        return None
    drawn = all(block.loss_before > 0 and block.loss_after > 0 for block in blocks)
    return Exhibit(
        "block-errors",
        _block_errors_title(blocks),
        "Squared error of each block's output relative to the output's power, before and after learning. Further left "
        "is better.",
        ("block", "error before", "error after", "iterations", "stopped", "seconds"),
        tuple(
            (
                block.name,
                f"{block.loss_before:.3g}",
                f"{block.loss_after:.3g}",
                str(block.iterations),
                block.stopped,
                f"{block.seconds:.1f}",
            )
            for block in blocks
        ),
        paint=charts.block_errors(blocks) if drawn else None,
        height=list_height(len(blocks)),
    )


def _block_errors_title(blocks: Sequence[Block]) -> str:
    learned = [b for b in blocks if b.iterations and b.loss_after > 0 and b.name != _JOINT_TUNING]
    if not learned:
        return "No block was learned: these are the errors of the initial scales"
    better = sum(block.loss_after < block.loss_before for block in learned)
    if not better:
        return "Learning lowered the error of no block"
    ratio = median(block.loss_before / block.loss_after for block in learned)
    count = "every block" if better == len(learned) else f"{better} of {len(learned)} blocks"
    return f"Learning lowered the error of {count}, {_by(ratio)} in the median"


def _by(ratio: float) -> str:
    """How much smaller what is divided by the ratio is, as in "by a factor of 3" or "by 12 %"."""
    if ratio >= 1.95:
        return f"by a factor of {ratio:.2g}"
    return f"by {100 * (1 - 1 / ratio):.0f} %" if ratio >= 1.01 else "by less than 1 %"


def _convergence(blocks: Sequence[Block]) -> Exhibit | None:
    told = [block for block in blocks if len(block.curve) > 1 and min(value for _, value in block.curve) > 0]
    if not told:
        return None
    ratios = {block.name: block.curve[-1][1] / block.curve[0][1] for block in told}
    slowest = max(ratios, key=lambda name: ratios[name])
    return Exhibit(
        "convergence",
        _convergence_title(median(ratios.values())),
        "One line a block: the squared error of a minibatch while it was learned, some of it in full precision. "
        f"The blocks that ended lowest and highest are coloured; {slowest} ended at {ratios[slowest]:.2g}.",
        ("block", "first", "last", "last / first"),
        tuple((b.name, f"{b.curve[0][1]:.3g}", f"{b.curve[-1][1]:.3g}", f"{ratios[b.name]:.2g}") for b in told),
        paint=charts.convergence(told),
    )


def _convergence_title(ratio: float) -> str:
    """ratio: the last error of a block over its first, in the median."""
    if ratio < 0.99:
        return f"Learning took the error of a block to {ratio:.2g} of its first value in the median"
    return (
        "Learning moved the error of a block by less than 1 % in the median"
        if ratio < 1.01
        else (f"Learning raised the error of a block by {100 * (ratio - 1):.0f} % in the median")
    )
