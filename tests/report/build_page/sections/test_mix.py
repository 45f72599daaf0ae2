"""The formats that a budget chose, and what they bought."""

from __future__ import annotations

from matplotlib.figure import Figure

from fimaq_deploy import report as r
from fimaq_deploy.report.build_page.sections.mix import mix
from fimaq_deploy.report.page.parts import Exhibit
from fimaq_deploy.report.schema import Mix


def chosen(**more: object) -> Mix:
    fields = {
        "formats": {"a": "w4a8", "b": "w8a8", "c": "w8a8"},
        "losses": {"a": {"w4a8": 0.25, "w8a8": 0.125}, "b": {"w4a8": 0.5, "w8a8": 0.0}, "c": {"w4a8": 1, "w8a8": 0}},
        "chosen": {"megabytes": 3.0, "speed": 2.0, "loss": 0.25},
        "front": [
            {"megabytes": 2.0, "speed": 2.0, "loss": 1.75},
            {"megabytes": 3.0, "speed": 2.0, "loss": 0.25},
            {"megabytes": 3.5, "speed": 2.0, "loss": 0.125},
        ],
    }
    return Mix.model_validate({**fields, **more})


def shown(report: r.Report, found: Mix | None) -> tuple[Exhibit, ...]:
    return mix(report.model_copy(update={"mix": found})).exhibits


def test_layers_stand_with_their_format_and_what_each_would_lose(full_report: r.Report) -> None:
    front, layers = shown(full_report, chosen())
    assert "takes 3 MB, 2 times as fast in its products as in floats" in front.title
    assert layers.title == "Of 3 layers 1 in w4a8, 2 in w8a8"
    assert layers.rows[0] == ("a", "w4a8", "0.25", "0.125")
    assert layers.note.endswith(
        "Beside the cheapest mix 86 % of the loss was spared, for 1 MB more; most of it by c, b."
    )


def test_what_learned_before_is_told(full_report: r.Report) -> None:
    point = {"megabytes": 2.0, "speed": 2.0, "loss": 1.75}
    *_, lost = shown(full_report, chosen(probes=[{"point": point, "drop": 0.75}]))
    assert lost.header[-1] == "lost" and lost.rows == (("2", "2", "1.75", "0.75"),)
    *_, together = shown(full_report, chosen(probes=[{"point": point, "loss": 0.5}]))
    assert together.header[-1] == "loss together" and together.rows == (("2", "2", "1.75", "0.5"),)


def test_the_front_is_drawn_over_what_the_budget_was_about(full_report: r.Report) -> None:
    for more, axis in (({}, "megabytes of model.onnx"), ({"speed_budget": 1.8}, "time of products, 1 is floats")):
        paint = shown(full_report, chosen(**more))[0].paint
        assert paint is not None
        axes = Figure().add_subplot()
        paint(axes)
        assert axes.get_xlabel() == axis and len(axes.lines) == 2 + bool(more)


def test_what_was_built_stands_beside_what_was_asked_for(full_report: r.Report) -> None:
    built = {"megabytes": 2.987, "times": [{"target": "onnxruntime-cpu", "speed": 1.75, "interval": (1.5, 2.0)}]}
    found = chosen(size_budget=3, built=built, costs="measured on this CPU with onnxruntime-cpu")
    front, budget, _ = shown(full_report, found)
    assert front.note.endswith("Times of products: measured on this CPU with onnxruntime-cpu.")
    assert budget.title == "What was built takes 2.987 MB; 3 were foreseen"
    assert budget.rows[0] == ("model.onnx, MB", "3", "3", "2.987")
    assert budget.rows[1][1:] == ("", "2", "1.75 (1.5 to 2)")
    _, several, _ = shown(full_report, chosen(built=built, costs="roofline of L4; measured on this CPU with x"))
    assert several.rows[1][2] == "at least 2"
    _, unmeasured, _ = shown(full_report, chosen(speed_budget=1.8, built={"megabytes": 3}))
    assert unmeasured.rows[1][1:] == ("1.8", "2", "not timed here")


def test_of_a_budget_of_time_the_price_is_time(full_report: r.Report) -> None:
    front = [{"megabytes": 2.0, "speed": 2.0, "loss": 1.75}, {"megabytes": 3.0, "speed": 1.6, "loss": 0.25}]
    found = chosen(speed_budget=1.6, chosen=front[1], front=front)
    assert "was spared, for 1.25 times the time in products; most of it by c, b." in shown(full_report, found)[1].note


def test_the_front_shows_where_the_budget_is(full_report: r.Report) -> None:
    for more, place in (({"size_budget": 3.1}, 3.1), ({"speed_budget": 2.0}, 0.5)):
        paint = shown(full_report, chosen(**more))[0].paint
        assert paint is not None
        axes = Figure().add_subplot()
        paint(axes)
        assert [*axes.lines[0].get_xdata()] == [place, place]


def test_the_cheapest_mix_bought_nothing(full_report: r.Report) -> None:
    cheapest = {"megabytes": 2.0, "speed": 2.0, "loss": 1.75}
    assert "It is the cheapest of all mixes." in shown(full_report, chosen(chosen=cheapest))[1].note


def test_other_recipes_have_no_such_section(full_report: r.Report) -> None:
    assert shown(full_report, None) == ()
