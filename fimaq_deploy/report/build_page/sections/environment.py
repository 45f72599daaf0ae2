"""The time that it took, and what it was made with."""

from __future__ import annotations

from fimaq_deploy.report.build_page import charts
from fimaq_deploy.report.page.canvas import list_height
from fimaq_deploy.report.page.parts import Exhibit, Section
from fimaq_deploy.report.schema import Report


def environment(report: Report) -> Section:
    return Section("environment", "Environment", "", (*_steps(report), _machine(report)))


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
