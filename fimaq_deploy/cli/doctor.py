"""`fimaq-deploy doctor`."""

from __future__ import annotations

from fimaq_deploy.cli.console import stdout


def doctor() -> None:
    """Say what can be built and run on this machine, and why not."""
    from fimaq_deploy.engines.runtimes import every_runtime, runtime_packages
    from fimaq_deploy.report import describe_environment

    machine = describe_environment(runtime_packages())
    stdout.print(f"{machine.cpu}, {machine.cores} cores; GPU: {machine.gpu or 'none'}; Python {machine.python}")
    stdout.print(", ".join(f"{name} {version}" for name, version in machine.packages.items()))
    for runtime in every_runtime():
        stdout.print(f"{runtime.name:<18}{_ability(*runtime.availability())}", soft_wrap=True)


def _ability(not_built: str | None, not_run: str | None) -> str:
    if not_built:
        return f"no: {not_built}"
    return f"builds, does not run: {not_run}" if not_run else "builds and runs"
