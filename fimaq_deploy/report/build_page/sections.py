"""The findings of one build, section by section, for the page and for Markdown alike.

A section stands only where there is something to show. Each finding's title is a sentence made from the figures.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from statistics import median

from fimaq_deploy.report.build_page import charts
from fimaq_deploy.report.build_page.table import (
    HEADER,
    cells,
    change_text,
    comparison_text,
    not_run_text,
    size_text,
    times_text,
)
from fimaq_deploy.report.build_page.verdict import cards, clear_speedup, concerns, failures, shipped, status, verdict
from fimaq_deploy.report.page.canvas import list_height
from fimaq_deploy.report.page.parts import Exhibit, Page, Section, compact
from fimaq_deploy.report.schema import (
    Audit,
    AuditBlock,
    Block,
    GridUse,
    Latency,
    Report,
    Row,
    Sensitivity,
    TargetStatus,
)

_MOST_SENSITIVE = 20


def report_page(report: Report) -> Page:
    """All that is told of one build."""
    said, tone = status(report)
    return Page(
        kind="Build report",
        heading=f"{report.model.name}, {report.recipe['name']}",
        status=said,
        tone=tone,
        headline=verdict(report),
        reasons=(*failures(report, report.max_drop), *concerns(report)),
        cards=cards(report),
        sections=sections(report),
        created=_date(report.created),
        command=report.command,
    )


def sections(report: Report) -> list[Section]:
    """Every section that has something to show, the most telling first."""
    found = (
        Section("results", "Results", _about_results(report), _results(report)),
        Section("reconstruction", "Reconstruction", _ABOUT_BLOCKS, _reconstruction(report.blocks)),
        Section("grids", "Grids", _ABOUT_GRIDS, _grids(report.grids)),
        Section("sensitivity", "Sensitivity", _ABOUT_SENSITIVITY, _sensitivity(report.sensitivity)),
        Section("latency", "Latency", _ABOUT_LATENCY, _latency(report)),
        Section("layer-plan", "Layer plan", _ABOUT_PLAN, tuple(_layer_plan(audit) for audit in report.audits)),
        Section("parity", "Parity", _ABOUT_PARITY, _parity(report)),
        Section("targets", "Targets", "", _targets(report.targets)),
        Section("environment", "Environment", "", _environment(report)),
    )
    return [section for section in found if section.exhibits]


# Results


def _about_results(report: Report) -> str:
    data = report.data
    labels = "" if data.labelled else " They have no labels, so accuracy is not known."
    notes = "".join(f" {note[:1].upper()}{note[1:]}." for note in data.notes)
    kept = f" {report.predictions} holds every row's prediction for each image." if report.predictions else ""
    return (
        f"Calibrated on {data.calibration_images:,} images ({data.calibration}), evaluated on "
        f"{data.evaluation_images:,} ({data.evaluation}).{labels}{notes}{kept}"
    )


def _results(report: Report) -> tuple[Exhibit, ...]:
    found = (_rows(report), _tradeoff(report), _files(report))
    return tuple(exhibit for exhibit in found if exhibit is not None)


def _rows(report: Report) -> Exhibit:
    compared = comparison_text(report)
    absent = [f"{row.title}: {not_run_text(row)}." for row in report.rows if row.not_run is not None]
    note = [
        "Latency is the median for one image, measured in turns.",
        *([f"Agreement and logit difference compare {compared}."] if compared else []),
        *absent,
    ]
    return Exhibit(
        "rows",
        "Every way the model was run",
        " ".join(note),
        HEADER,
        tuple(cells(row) for row in report.rows),
        tuple(number for number, row in enumerate(report.rows) if row in report.deployed),
    )


def _tradeoff(report: Report) -> Exhibit | None:
    if not any(row.accuracy and row.latency for row in report.rows):
        return None
    rows = [row for row in report.rows if row.accuracy]
    return Exhibit(
        "tradeoff",
        _tradeoff_title(report),
        "Higher and further left is better. Bars are 95 % intervals (Wilson) of the share of images; "
        "the dashed line is the original in PyTorch.",
        ("", "images", "top-1 %", "interval", "points", "top-5 %", "ms"),
        tuple(_accuracy_cells(report, row) for row in rows),
        paint=charts.tradeoff(report),
        height=270,
    )


def _tradeoff_title(report: Report) -> str:
    row = shipped(report)
    drop = report.drop(row) if row else None
    if row is None or drop is None or not row.latency or not row.latency[0].speedup:
        return "Accuracy against latency"
    change = f"{'loses' if drop > 0 else 'gains'} {abs(drop):.2f} points of top-1" if drop else "keeps its accuracy"
    clear = clear_speedup(row.latency[0])
    speed = f"at {times_text(row.latency[0].speedup)} the speed" if clear else "with no clear change of speed"
    return f"{row.title} {change} {speed}"


def _accuracy_cells(report: Report, row: Row) -> tuple[str, ...]:
    assert row.accuracy
    accuracy, drop = row.accuracy, report.drop(row)
    return (
        row.title,
        f"{accuracy.images:,}",
        f"{accuracy.top1:.2f}",
        f"{accuracy.interval[0]:.2f} to {accuracy.interval[1]:.2f}",
        "" if drop is None or row is report.baseline else change_text(drop),
        "" if accuracy.top5 is None else f"{accuracy.top5:.2f}",
        f"{row.latency[0].p50_ms:.2f}" if row.latency else "",
    )


def _files(report: Report) -> Exhibit | None:
    rows = [row for row in report.rows if row.file or row.peak_memory_bytes]
    if not any(row.peak_memory_bytes for row in rows):
        return None
    lines = tuple(
        (row.title, row.file or "", size_text(row.size_bytes), size_text(row.peak_memory_bytes)) for row in rows
    )
    note = "Peak memory is that of a process that ran this row alone."
    return Exhibit("files", "Files and memory", note, ("", "file", "size", "peak memory"), lines)


# Reconstruction

_JOINT_TUNING = "joint tuning"  # the one record of a build that is not of a block
_ABOUT_BLOCKS = (
    "Blocks are learned one after the other, each on the outputs of the quantized blocks before it. Some recipes end "
    "in a joint tuning of all blocks."
)


def _reconstruction(blocks: Sequence[Block]) -> tuple[Exhibit, ...]:
    found = (_block_errors(blocks), _convergence(blocks))
    return tuple(exhibit for exhibit in found if exhibit is not None)


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
    return f"Learning lowered the error of {count}, by a factor of {ratio:.2g} in the median"


def _convergence(blocks: Sequence[Block]) -> Exhibit | None:
    told = [block for block in blocks if len(block.curve) > 1 and min(value for _, value in block.curve) > 0]
    if not told:
        return None
    ratios = {block.name: block.curve[-1][1] / block.curve[0][1] for block in told}
    slowest = max(ratios, key=lambda name: ratios[name])
    return Exhibit(
        "convergence",
        f"Learning took the error of a block to {median(ratios.values()):.2g} of its first value in the median",
        "One line a block: the squared error of a minibatch while it was learned, some of it in full precision. "
        f"The blocks that ended lowest and highest are coloured; {slowest} ended at {ratios[slowest]:.2g}.",
        ("block", "first", "last", "last / first"),
        tuple((b.name, f"{b.curve[0][1]:.3g}", f"{b.curve[-1][1]:.3g}", f"{ratios[b.name]:.2g}") for b in told),
        paint=charts.convergence(told),
    )


# Grids

_ABOUT_GRIDS = "How the weights, and the activations of the calibration images, fill the integers that they may take."


def _grids(grids: Sequence[GridUse]) -> tuple[Exhibit, ...]:
    if not grids:
        return ()
    least = min(grids, key=charts.used_share)
    most = max(grids, key=lambda grid: grid.clipped)
    lines = tuple(
        (
            g.name,
            g.kind,
            str(g.bits),
            f"{g.used_levels} of {g.levels}",
            f"{charts.used_share(g):.0f}",
            f"{g.clipped:.2g}",
        )
        for g in grids
    )
    return (
        Exhibit(
            "grid-use",
            f"The {least.kind} of {least.name} uses the fewest of its integers: {least.used_levels} of {least.levels}",
            "Integers that occur, as a share of those that the grid has.",
            ("tensor", "kind", "bits", "integers", "used %", "clipped %"),
            lines,
            paint=charts.grid_use(grids),
        ),
        Exhibit(
            "clipping",
            f"The {most.kind} of {most.name} clips the most: {most.clipped:.2g} % of its values"
            if most.clipped
            else "No value is clipped",
            "Values beyond the largest integer of the grid. A little clipping buys finer steps for the rest.",
            paint=charts.clipping(grids),
        ),
    )


# Sensitivity

_ABOUT_SENSITIVITY = (
    "The Fisher loss of the logits when one part alone is quantized, and by how much the loss falls when everything "
    "but that part is. It needs no labels."
)


def _sensitivity(found: Sequence[Sensitivity]) -> tuple[Exhibit, ...]:
    kinds = ("block", "layer")
    return tuple(
        _most_sensitive(kind, [one for one in found if one.kind == kind])
        for kind in kinds
        if any(one.kind == kind for one in found)
    )


def _most_sensitive(kind: str, found: Sequence[Sensitivity]) -> Exhibit:
    ordered = sorted(found, key=lambda one: -one.alone)
    seen = ordered[:_MOST_SENSITIVE]
    total = sum(one.alone for one in found)
    share = f": {100 * ordered[0].alone / total:.0f} % of the sum over all {kind}s" if total > 0 else ""
    return Exhibit(
        f"sensitivity-{kind}",
        f"{ordered[0].name} costs the most{share}",
        f"The {len(seen)} most sensitive of {len(found)} {kind}s." if len(seen) < len(found) else f"Every {kind}.",
        (kind, "alone", "spared"),
        tuple((one.name, f"{one.alone:.3g}", f"{one.spared:.3g}") for one in ordered),
        paint=charts.sensitivity(seen),
        height=list_height(len(seen)),
    )


# Latency

_ABOUT_LATENCY = "All engines are timed in turns in one run; a speed-up is the median of the turns' own ratios."


def _latency(report: Report) -> tuple[Exhibit, ...]:
    rows = [row for row in report.rows if row.latency]
    if not rows:
        return ()
    floor = any(latency.floor_ms is not None for row in rows for latency in row.latency)
    dashed = " Dashed: the least time that the machine's measured rates allow (roofline)." if floor else ""
    exhibit = Exhibit(
        "latency-by-batch",
        _latency_title(report),
        f"Time for an image: the median, with a line to the 90th percentile, cut where it is far off.{dashed} "
        "Lower is better.",
        ("", "batch", "p50 ms", "p90 ms", "p99 ms", "floor ms", "images / s", "speed-up", "over"),
        tuple(line for row in rows for line in _latency_lines(report, row)),
        paint=charts.latency_by_batch(report),
        height=280,
    )
    return (compact(exhibit),)


def _latency_title(report: Report) -> str:
    row = shipped(report)
    found = [latency for latency in row.latency if latency.speedup] if row else []
    if row is None or not found:
        return "Latency by batch size"
    told = [
        f"{times_text(latency.speedup or 1)} at batch {latency.batch_size}"
        for latency in found
        if clear_speedup(latency)
    ]
    unclear = " and ".join(str(latency.batch_size) for latency in found if not clear_speedup(latency))
    parts = [*told, f"no clear difference at batch {unclear}"] if unclear else told
    return f"{row.title} over {_title(report, found[0].ratio_to)}: {', '.join(parts)}"


def _latency_lines(report: Report, row: Row) -> Iterable[tuple[str, ...]]:
    for latency in row.latency:
        yield (
            row.title,
            str(latency.batch_size),
            f"{latency.p50_ms:.2f}",
            f"{latency.p90_ms:.2f}",
            f"{latency.p99_ms:.2f}",
            "" if latency.floor_ms is None else f"{latency.floor_ms:.3g}",
            f"{latency.images_per_second:,.0f}",
            _speedup_text(latency),
            "" if latency.ratio_to is None or latency.speedup is None else _title(report, latency.ratio_to),
        )


def _speedup_text(latency: Latency) -> str:
    if latency.speedup is None:
        return ""
    low, high = latency.speedup_interval or (None, None)
    return times_text(latency.speedup) + (f" ({low:.2f} to {high:.2f})" if low and high else "")


# Layer plan and parity

_ABOUT_PLAN = "The kernels that each block was compiled to, beside those of the full-precision twin."
_ABOUT_PARITY = "Each stage is computed by two runtimes from the same input."


def _layer_plan(audit: Audit) -> Exhibit:
    capability = f", compute capability {audit.compute_capability}" if audit.compute_capability else ""
    exhibit = Exhibit(
        f"audit-{audit.target}",
        f"{audit.target}: {_plan_title(audit)}",
        f"Kernels of each block{capability}. Brown: more kernels than the twin, a GEMM without integers, or a weight "
        "dequantized at run time.",
        ("block", "kernels", "twin", "INT8 GEMMs", "attention", "weights dequantized", "conversions"),
        tuple(_plan_cells(block) for block in audit.blocks),
        tuple(number for number, block in enumerate(audit.blocks) if charts.plan_is_worse(block)),
        paint=charts.layer_plan(audit.blocks) if audit.blocks else None,
        height=list_height(len(audit.blocks)),
    )
    return compact(exhibit)


def _plan_title(audit: Audit) -> str:
    gemms, int8 = sum(b.gemms for b in audit.blocks), sum(b.int8_gemms for b in audit.blocks)
    attention = sorted({block.attention for block in audit.blocks if block.attention})
    decoded = sum(block.weight_only_gemms for block in audit.blocks)
    told = f", attention {' and '.join(attention)}" if attention else ""
    left = sum(block.left_alone for block in audit.blocks)
    others = "".join(f", {count} {kind}" for count, kind in ((decoded, "weight-only"), (left, "left alone")) if count)
    return f"{int8} of {gemms} GEMMs run in INT8{others}{told}"


def _plan_cells(block: AuditBlock) -> tuple[str, ...]:
    return (
        block.name,
        str(block.kernels),
        "" if block.twin_kernels is None else str(block.twin_kernels),
        f"{block.int8_gemms} of {block.gemms}",
        block.attention or "",
        str(block.dequantized_weights),
        str(block.conversions),
    )


def _parity(report: Report) -> tuple[Exhibit, ...]:
    pairs = [pair for pair in report.parity if pair.stages]
    if not pairs:
        return ()
    parted = [f"{_title(report, pair.to)} parts at {pair.first_parting}" for pair in pairs if pair.first_parting]
    lines = tuple(
        (
            stage.name,
            _title(report, pair.to),
            "not finite" if stage.largest_difference is None else f"{stage.largest_difference:.2g}",
            f"{stage.differing:.2g}",
            "" if stage.largest_step is None else str(stage.largest_step),
            "" if stage.flipped is None else f"{stage.flipped:.2g}",
        )
        for pair in pairs
        for stage in pair.stages
    )
    drawn = any(stage.largest_difference for pair in pairs for stage in pair.stages)
    return (
        Exhibit(
            "stages",
            "; ".join(parted) or "Every stage agrees with fake-quant within the tolerance",
            "Largest difference from fake-quant. Stages without a mark are equal."
            if drawn
            else "Largest difference from fake-quant.",
            ("stage", "against", "largest difference", "differing %", "steps", "flipped %"),
            lines,
            paint=charts.parity(pairs, {row.id: row.title for row in report.rows}) if drawn else None,
            height=list_height(len({line[0] for line in lines})),
        ),
    )


# Targets and environment


def _targets(targets: Sequence[TargetStatus]) -> tuple[Exhibit, ...]:
    if not targets:
        return ()
    lines = tuple((target.name, _built(target), _ran(target)) for target in targets)
    return (Exhibit("status", "", "", ("target", "built", "run"), lines),)


def _built(target: TargetStatus) -> str:
    if target.not_built:
        return f"no: {target.not_built}"
    return "yes" if target.compile_seconds is None else f"in {target.compile_seconds:.1f} s"


def _ran(target: TargetStatus) -> str:
    reason = target.not_built or target.not_run
    return f"no: {reason}" if reason else "yes"


def _environment(report: Report) -> tuple[Exhibit, ...]:
    return (*_steps(report), _machine(report))


def _steps(report: Report) -> tuple[Exhibit, ...]:
    steps, total = report.steps, sum(step.seconds for step in report.steps)
    if total <= 0:
        return ()
    longest = max(steps, key=lambda step: step.seconds)
    return (
        Exhibit(
            "steps",
            f"The build took {total:.1f} s, {100 * longest.seconds / total:.0f} % of them to {longest.name}",
            "",
            ("step", "seconds"),
            tuple((step.name, f"{step.seconds:.1f}") for step in steps),
            paint=charts.seconds(steps),
            height=list_height(len(steps)) - 20,
        ),
    )


def _machine(report: Report) -> Exhibit:
    machine, model = report.environment, report.model
    gpu = ", ".join(text for text in (machine.gpu, machine.driver and f"driver {machine.driver}") if text)
    channels, height, width = model.input_shape
    return Exhibit(
        "machine",
        "What it was made with",
        "",
        ("", ""),
        (
            (
                "model",
                f"{model.name}, {model.weights} weights, {model.parameters:,} parameters, {model.classes} classes",
            ),
            ("input", f"{channels} × {height} × {width}"),
            ("recipe", recipe_text(report)),
            ("processor", f"{machine.cpu}, {machine.cores} cores"),
            ("GPU", gpu or "none"),
            ("system", f"{machine.platform}, Python {machine.python}"),
            ("packages", ", ".join(f"{name} {version}" for name, version in machine.packages.items())),
            ("seed", str(report.seed)),
        ),
    )


def recipe_text(report: Report) -> str:
    """The recipe's name and its bits."""
    recipe = report.recipe
    bits = [
        f"{recipe[part]['bits']}-bit {part}" for part in ("weights", "activations") if "bits" in recipe.get(part, {})
    ]
    return ", ".join([recipe["name"], *bits])


def _date(created: str) -> str:
    return created[:16].replace("T", " ") + " UTC"


def _title(report: Report, row_id: str | None) -> str:
    row = report.row(row_id or "")
    return row.title if row else row_id or ""
