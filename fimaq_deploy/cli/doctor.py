"""`fimaq-deploy doctor`."""

from __future__ import annotations

from fimaq_deploy.cli.console import stdout


def doctor() -> None:
    """Say what can be built and run on this machine, and why not."""
    from fimaq_deploy.engines import availability
    from fimaq_deploy.report import describe_environment
    from fimaq_deploy.target import TARGETS

    machine = describe_environment()
    stdout.print(f"{machine.cpu}, {machine.cores} cores; GPU: {machine.gpu or 'none'}; Python {machine.python}")
    stdout.print(", ".join(f"{name} {version}" for name, version in machine.packages.items()))
    for name in TARGETS:
        stdout.print(f"{name:<18}{_ability(*availability(name))}", soft_wrap=True)


def _ability(not_built: str | None, not_run: str | None) -> str:
    if not_built:
        return f"no: {not_built}"
    return f"builds, does not run: {not_run}" if not_run else "builds and runs"
