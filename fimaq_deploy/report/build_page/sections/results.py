"""What was measured of every way to run the model."""

from __future__ import annotations

from fimaq_deploy.report.build_page import charts
from fimaq_deploy.report.build_page.table import cells, header, not_run_text
from fimaq_deploy.report.build_page.verdict import clear_speedup, shipped
from fimaq_deploy.report.figures import Loss, Reading, held, loss, losses, outputs, plotted, readings
from fimaq_deploy.report.page.parts import Exhibit, Section, compact
from fimaq_deploy.report.schema import Report, Row
from fimaq_deploy.report.words import change_text, number_text, size_text, times_text, told_text, value_text


def results(report: Report) -> Section:
    found = (_rows(report), _tradeoff(report), _figures(report), _chain(report), _files(report))
    return Section("results", "Results", _about(report), tuple(exhibit for exhibit in found if exhibit is not None))


def _about(report: Report) -> str:
    data = report.data
    labels = "" if data.labelled else " They have no labels, so accuracy is not known."
    notes = "".join(f" {_begun(note)}." for note in data.notes)
    bank = f" Neighbours and probes are of {data.bank}." if data.bank else ""
    kept = f" {report.predictions} holds what every row did with each image." if report.predictions else ""
    return (
        f"Calibrated on {data.calibration_images:,} images ({data.calibration}), evaluated on "
        f"{data.evaluation_images:,} ({data.evaluation}).{_kinds(report)}{bank}{labels}{notes}{kept}"
    )


def _begun(note: str) -> str:
    """As a sentence begins; the name of a file stays as it is."""
    return note if "." in note.partition(" ")[0] else f"{note[:1].upper()}{note[1:]}"


def _kinds(report: Report) -> str:
    """What the outputs were taken for."""
    told = [f"{output.name} as {output.task}" for output in report.outputs]
    return (
        f" Measured {', '.join(told)}." if len(told) > 1 else "".join(f" Measured as {o.task}." for o in report.outputs)
    )


def _rows(report: Report) -> Exhibit:
    absent = [f"{row.title}: {not_run_text(row)}." for row in report.rows if row.not_run is not None]
    note = [
        "Latency is the median for one image, measured in turns.",
        *([f"What is no figure against labels compares with {report.baseline.title}."] if report.outputs else []),
        *absent,
    ]
    return Exhibit(
        "rows",
        "Every way the model was run",
        " ".join(note),
        header(report),
        tuple(cells(report, row) for row in report.rows),
        tuple(number for number, row in enumerate(report.rows) if row in report.deployed),
    )


def _tradeoff(report: Report) -> Exhibit | None:
    rows = [(row, found) for row in report.rows if (found := plotted(report, row)) is not None]
    if not any(row.latency for row, _ in rows):
        return None
    meaning = rows[0][1].meaning
    better = "Higher" if meaning.higher_is_better else "Lower"
    line = f"; the dashed line is {report.baseline.title}" if meaning.of != "original" else ""
    return Exhibit(
        "tradeoff",
        _tradeoff_title(report),
        f"{better} and further left is better. Bars are 95 % intervals of {meaning.title}, over the images{line}.",
        ("", "images", f"{meaning.title} {meaning.unit}".strip(), "interval", "change", "ms"),
        tuple(_tradeoff_cells(report, row, found) for row, found in rows),
        paint=charts.tradeoff(report),
        height=270,
    )


def _tradeoff_title(report: Report) -> str:
    row = shipped(report)
    found = plotted(report, row) if row else None
    if row is None or found is None or not row.latency or not row.latency[0].speedup:
        return "Accuracy against latency"
    clear = clear_speedup(row.latency[0])
    speed = f"at {times_text(row.latency[0].speedup)} the speed" if clear else "with no clear change of speed"
    return f"{row.title} {_change_told(report, row, found)} {speed}"


def _change_told(report: Report, row: Row, found: Reading) -> str:
    """As in "loses 0.50 points of top-1"."""
    change, meaning = loss(report, row), found.meaning
    if change is None or meaning.of == "original":
        return f"has {told_text(report, found)},"
    if round(change.amount, 4) == 0:
        return f"keeps its {meaning.title}"
    if meaning.unit == "%":
        return f"{'loses' if change.amount > 0 else 'gains'} {abs(change.amount):.2f} points of {meaning.title}"
    better = "worse" if change.amount > 0 else "better"
    return f"has {meaning.title} {number_text(found.value)}, {number_text(abs(change.amount))} {better}"


def _tradeoff_cells(report: Report, row: Row, found: Reading) -> tuple[str, ...]:
    change, meaning = loss(report, row), found.meaning
    told = change is not None and row is not report.baseline and meaning.of != "original"
    return (
        row.title,
        f"{report.data.evaluation_images:,}",
        number_text(found.value, meaning.unit),
        _interval(found),
        _moved(report, row, found) if told else "",
        f"{row.latency[0].p50_ms:.2f}" if row.latency else "",
    )


def _moved(report: Report, row: Row, found: Reading) -> str:
    change = loss(report, row)
    assert change is not None
    return change_text(change.amount if found.meaning.higher_is_better else -change.amount, found.meaning.unit)


def _interval(found: Reading) -> str:
    if found.figure.interval is None:
        return ""
    low, high = (number_text(end, found.meaning.unit) for end in found.figure.interval)
    return f"{low} to {high}"


def _figures(report: Report) -> Exhibit | None:
    """All figures of what is shipped, one a line."""
    row = shipped(report)
    if row is None or not report.outputs:
        return None
    found, own, lost = readings(report, row), held(report, row), losses(report, row)
    told = [next((each for each in lost if each.reading == one), None) for one in found]
    lines = tuple((*_figure_cells(report, one), _lost(each)) for one, each in zip(found, told, strict=True))
    return compact(
        Exhibit(
            "figures",
            f"{row.title}, figure by figure",
            "Intervals are at 95 %: Wilson's of shares of images, of anything else from resampled images; of what is "
            "lost from what both did with the same images.",
            ("output", "figure", "value", "interval", "measured of", f"lost against {report.baseline.title}"),
            lines,
            tuple(number for number, one in enumerate(found) if one in own),
        )
    )


def _lost(found: Loss | None) -> str:
    """As in "1.07 (0.41 to 1.69)"."""
    if found is None:
        return ""
    unit = found.reading.meaning.unit
    if found.interval is None:
        return number_text(found.amount, unit)
    low, high = (number_text(end, unit) for end in found.interval)
    return f"{number_text(found.amount, unit)} ({low} to {high})"


def _figure_cells(report: Report, one: Reading) -> tuple[str, ...]:
    compared = {"original": f"outputs and {report.baseline.title}'s", "labels": "outputs and labels"}
    return (
        one.output.name if one.output else "",
        one.title,
        value_text(one.value, one.meaning.unit),
        _interval(one),
        compared.get(one.meaning.of, f"outputs, by {report.evaluate}"),
    )


def _chain(report: Report) -> Exhibit | None:
    """Every row beside the one that it should equal: where a difference came in."""
    rows = [row for row in report.rows if row.comparison]
    if not rows:
        return None
    return Exhibit(
        "chain",
        "Step by step: every row beside the one that it should equal",
        "A diagnosis of where a difference came in. How close a row is to the original stands above.",
        ("", "beside", "figure", "largest difference"),
        tuple(_chain_cells(report, row) for row in rows),
    )


def _chain_cells(report: Report, row: Row) -> tuple[str, ...]:
    assert row.comparison is not None
    difference = row.comparison.largest_difference
    unordered = outputs(report)[0].task == "detection"  # objects come in any order
    return (
        row.title,
        report.title_of(row.comparison.to),
        _chain_figures(report, row),
        f"{difference:.2g}" if difference is not None else "" if unordered else "not finite",
    )


def _chain_figures(report: Report, row: Row) -> str:
    assert row.comparison is not None
    meanings = {(output.name, m.name): m for output in outputs(report) for m in output.figures}
    found = [(meanings.get((one.output, one.name)), one) for one in row.comparison.figures]
    told = [f"{meaning.title} {value_text(one.value, meaning.unit)}" for meaning, one in found if meaning is not None]
    agreement = row.comparison.agreement
    return ", ".join(told) or ("" if agreement is None else f"agree {agreement:.2f} %")


def _files(report: Report) -> Exhibit | None:
    rows = [row for row in report.rows if row.file or row.peak_memory_bytes]
    if not any(row.peak_memory_bytes for row in rows):
        return None
    lines = tuple(
        (row.title, row.file or "", size_text(row.size_bytes), size_text(row.peak_memory_bytes)) for row in rows
    )
    note = "Peak memory is that of a process that ran this row alone."
    return Exhibit("files", "Files and memory", note, ("", "file", "size", "peak memory"), lines)
