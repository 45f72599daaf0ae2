"""Which rewrites were measured, and what each was worth."""

from __future__ import annotations

from fimaq_deploy.report.page.parts import Exhibit, Section
from fimaq_deploy.report.schema import Report, RewriteChoice, RewriteTrial

_ABOUT = (
    "Each switch was tried without learning: scales from one half of some calibration images, the loss of the outputs "
    "on the other, both ways round. What clearly lowered it was taken, and stands in recipe.yaml."
)


def rewrites(report: Report) -> Section:
    found = report.rewrites
    return Section("rewrites", "Rewrites", _ABOUT, () if found is None else (_trials(found),))


def _trials(found: RewriteChoice) -> Exhibit:
    taken = [trial for trial in found.trials if trial.taken]
    title = "No switch was worth taking" if not taken else f"Taken: {', '.join(trial.setting for trial in taken)}"
    if taken:
        title += f"; the loss before learning is {taken[-1].loss:.3g}, from {found.loss:.3g}"
    return Exhibit(
        "rewrite-trials",
        title,
        f"Divergence of the outputs, mean over {found.images} images; without any of them {found.loss:.3g}. Taken is "
        "what lowers it by more than three standard errors, in both halves, and by 2 %.",
        ("setting", "beside", "loss", "lower by", "three standard errors", "taken"),
        tuple(_row(trial) for trial in found.trials),
    )


def _row(trial: RewriteTrial) -> tuple[str, ...]:
    beside = ", ".join(trial.beside) or "–"
    figures = (f"{one:.3g}" for one in (trial.loss, trial.gain, trial.noise))
    return trial.setting, beside, *figures, "yes" if trial.taken else "no"
