from __future__ import annotations

import json
import re

import pytest
from pydantic import ValidationError

from fimaq_deploy import report as r
from fimaq_deploy.report.build_page import sections
from fimaq_deploy.report.build_page.table import cells, header
from fimaq_deploy.report.build_page.verdict import failures, verdict
from fimaq_deploy.report.page.markdown import escaped
from fimaq_deploy.report.page.parts import Exhibit, Section
from fimaq_deploy.report.words import size_text


def example(top1: float = 97.5, *, labelled: bool = True) -> r.Report:
    def accuracy(value: float) -> r.Accuracy | None:
        return r.Accuracy(images=600, top1=value, top5=100.0, interval=(value - 1, value + 1)) if labelled else None

    same = r.Comparison(to="pytorch-fp32", agreement=99.5, largest_difference=0.12345)
    fast = r.Latency(
        batch_size=1, p50_ms=0.81, p90_ms=0.9, p99_ms=1.0, images_per_second=1235, ratio_to="onnx-fp32", speedup=1.25
    )
    return r.Report(
        created="2026-01-02T03:04:05+00:00",
        command="fimaq-deploy build --model swin_digits",
        seed=0,
        model=r.Model(name="swin_digits", weights="pretrained", input_shape=(1, 16, 16), classes=10, parameters=123),
        recipe={"name": "w8a8"},
        data=r.Data(
            calibration="digits", calibration_images=256, evaluation="digits", evaluation_images=600, labelled=labelled
        ),
        environment=r.describe_environment(),
        targets=[r.TargetStatus(name="tensorrt-rtx", not_run="no NVIDIA driver", compile_seconds=0.53)],
        rows=[
            r.Row(id="pytorch-fp32", title="PyTorch FP32", accuracy=accuracy(98.0)),
            r.Row(id="onnx-fp32", title="ONNX FP32", file="model.fp32.onnx", size_bytes=4_000_000),
            r.Row(
                id="onnxruntime-cpu",
                title="ONNX Runtime",
                deployed=True,
                accuracy=accuracy(top1),
                comparison=same,
                latency=[fast],
                file="model.onnx",
                size_bytes=999_600,
            ),
            r.Row(id="tensorrt-rtx", title="TensorRT-RTX", deployed=True, not_run="no driver", size_bytes=2_000_000),
        ],
        blocks=[r.Block(name="blocks.0", loss_before=0.01, loss_after=0.001, iterations=100, seconds=1.5)],
        steps=[r.Step(name="quantize", seconds=3.2)],
    )


def test_json_reads_back_as_itself_and_carries_its_schema() -> None:
    report = example()
    text = report.to_json()
    assert json.loads(text)["schema"] == "fimaq-deploy/report/1"
    assert r.Report.model_validate_json(text) == report


@pytest.mark.parametrize("change", [{"schema": "fimaq-deploy/report/9"}, {"extra": 1}, {"seed": "x"}])
def test_a_foreign_document_is_refused(change: dict[str, object]) -> None:
    document = json.loads(example().to_json())
    with pytest.raises(ValidationError):
        r.Report.model_validate({**document, **change})


def test_a_row_is_readable() -> None:
    """Of a report from before 0.2.0, which says nothing of its outputs."""
    report = example()
    assert header(report) == ("", "top-1 %", "top-5 %", "agree %", "ms", "speed-up", "size")
    assert cells(report, report.rows[2]) == ("ONNX Runtime", "97.50", "100.00", "99.50", "0.81", "1.25×", "1.0 MB")


@pytest.mark.parametrize(
    ("size", "text"), [(None, ""), (1234, "1 kB"), (999_499, "999 kB"), (999_500, "1.0 MB"), (12_340_000, "12.3 MB")]
)
def test_sizes(size: int | None, text: str) -> None:
    assert size_text(size) == text


def test_the_verdict_names_accuracy_speed_and_size() -> None:
    assert verdict(example()) == (
        "swin_digits with recipe w8a8, ONNX Runtime: 97.50 % top-1 (-0.50 points), 1.25 times the speed of FP32, "
        "1.0 MB instead of 4.0 MB."
    )


def test_without_labels_the_verdict_speaks_of_agreement() -> None:
    text = verdict(example(labelled=False))
    assert "top-1" not in text
    assert "99.50 % of predictions" in text


@pytest.mark.parametrize(
    ("top1", "allowed", "count"), [(97.5, 0.5, 0), (97.4, 0.5, 1), (90.0, None, 0), (98.5, 0.0, 0)]
)
def test_the_gate_judges_only_what_ran_and_would_be_shipped(top1: float, allowed: float | None, count: int) -> None:
    assert len(failures(example(top1), allowed)) == count


def test_markdown_says_it_all() -> None:
    text = r.to_markdown(example())
    for expected in (
        "# swin_digits, w8a8",
        "| ONNX Runtime | 97.50 | 100.00 | 99.50 | 0.81 | 1.25× | 1.0 MB |",
        "| TensorRT-RTX | not run |",
        "TensorRT-RTX: not run: no driver.",
        "| ONNX Runtime | PyTorch FP32 | agree 99.50 % | 0.12 |",
        "| tensorrt-rtx | in 0.5 s | no: no NVIDIA driver |",
        "| blocks.0 | 0.01 | 0.001 | 100 | ceiling | 1.5 |",
        "fimaq-deploy build --model swin_digits",
    ):
        assert expected in text


def test_markdown_tables_are_whole() -> None:
    blocks = r.to_markdown(example()).split("\n\n")
    tables = [block.splitlines() for block in blocks if block.startswith("| ")]
    assert len(tables) == 8
    assert all(len({line.count("|") for line in table}) == 1 for table in tables)


def test_a_not_run_row_without_labels_is_not_a_failure() -> None:
    assert failures(example(labelled=False), 0.0) == []


def test_a_compiler_that_refuses_is_a_failure() -> None:
    status = r.TargetStatus(name="tensorrt", not_built="cannot compile", failed=True)
    assert failures(example().model_copy(update={"targets": [status]}), None) == ["tensorrt: cannot compile"]


def test_a_section_is_one_function_in_a_list(monkeypatch: pytest.MonkeyPatch) -> None:
    def toy(report: r.Report) -> Section:
        return Section("toy", "Toy", exhibits=(Exhibit("seed", f"The seed is {report.seed}"),))

    monkeypatch.setattr(sections, "SECTIONS", [toy, *sections.SECTIONS])
    assert [section.id for section in sections.sections(example())][:2] == ["toy", "results"]
    assert "## Toy" in r.to_markdown(example())
    assert "The seed is 0" in r.to_html(example())


@pytest.mark.parametrize(("before", "after", "told"), [(0.3, 0.1, "by a factor of 3"), (1.1, 1.0, "by 9 %")])
def test_learning_is_told_as_it_was(before: float, after: float, told: str) -> None:
    block = r.Block(name="a", loss_before=before, loss_after=after, iterations=9, seconds=1)
    assert f"every block, {told} in the median" in r.to_markdown(example().model_copy(update={"blocks": [block]}))


def test_learning_of_nothing_is_not_a_factor_of_one() -> None:
    block = r.Block(name="a", loss_before=1.001, loss_after=1.0, iterations=9, seconds=1)
    text = r.to_markdown(example().model_copy(update={"blocks": [block]}))
    assert "by less than 1 %" in text and "factor" not in text


def test_the_same_speed_is_not_a_factor_of_one() -> None:
    report = example()
    same = report.rows[2].latency[0].model_copy(update={"speedup": 1.001, "speedup_interval": (1.0005, 1.0015)})
    rows = [*report.rows[:2], report.rows[2].model_copy(update={"latency": [same]}), report.rows[3]]
    report = report.model_copy(update={"rows": rows})
    assert "as fast as FP32" in verdict(report) and "1.00 times" not in verdict(report)


@pytest.mark.parametrize(
    "name", ["a|b", "`code`", "line\nbreak", "<img src=x>", "[x](http://y)", "*b*", "_i_", "&lt;b&gt;", "~~s~~", "a\\"]
)
def test_what_a_user_named_is_only_text_in_markdown(name: str) -> None:
    """Read back by a parser of Markdown where there is one, and the tables stay whole in any case."""
    report = example()
    model, rows = report.model.model_copy(update={"name": name}), [report.rows[0].model_copy(update={"title": name})]
    text = r.to_markdown(report.model_copy(update={"model": model, "rows": [*rows, *report.rows[1:]]}))
    assert text.startswith(f"# {escaped(name)}, w8a8\n")
    tables = [block.splitlines() for block in text.split("\n\n") if block.startswith("| ")]
    assert all(len({len(re.findall(r"(?<!\\)\|", line)) for line in table}) == 1 for table in tables)
    markdown_it = pytest.importorskip("markdown_it")
    (shown,) = (token.content for token in markdown_it.MarkdownIt().parseInline(escaped(name))[0].children or [])
    assert shown == " ".join(name.split())


def test_a_command_cannot_end_its_block() -> None:
    text = r.to_markdown(example().model_copy(update={"command": "a ```\n# b"}))
    assert text.endswith("````bash\na ```\n# b\n````\n")
