"""`fimaq-deploy doctor`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fimaq_deploy.cli.console import stdout
from fimaq_deploy.cli.options import JsonOption, write_document

if TYPE_CHECKING:
    from fimaq_deploy.pipeline.inventory import GpuAbility, Machine


def doctor(json: JsonOption = None) -> None:
    """Say what can be built and run on this machine, and why not."""
    from fimaq_deploy.pipeline.inventory import look_around

    found = look_around()
    if not write_document(json, found.document()):
        _print(found)


def _print(found: Machine) -> None:
    machine = found.environment
    stdout.print(f"{machine.cpu}, {machine.cores} cores; GPU: {machine.gpu or 'none'}; Python {machine.python}")
    stdout.print(", ".join(f"{name} {version}" for name, version in machine.packages.items()))
    for number, each in enumerate(found.gpus):
        stdout.print(f"GPU {number}: {_gpu(each)}", soft_wrap=True)
    for provider in found.providers:
        stdout.print(f"ONNX Runtime's {provider.provider} library {_loads(provider.missing)}", soft_wrap=True)
    for one in found.abilities:
        stdout.print(f"{one.runtime.name:<18}{_ability(one.not_built, one.not_run)}", soft_wrap=True)
        if one.runtime.remark:
            stdout.print(f"{'':<18}{one.runtime.remark}", soft_wrap=True)


def _gpu(one: GpuAbility) -> str:
    """As in "NVIDIA H100, compute capability 9.0, 80 GB; tensorrt yes; tensorrt-rtx no, it compiles for …"."""
    generation = ".".join(map(str, one.gpu.capability))
    engines = [f"{name} {'yes' if why is None else f'no, {why}'}" for name, why in one.not_for.items()]
    memory = f"{one.gpu.memory_bytes / 2**30:.0f} GiB"
    return "; ".join([f"{one.gpu.name}, compute capability {generation}, {memory}", *engines])


def _loads(missing: str | None) -> str:
    return "loads" if missing is None else f"does not load: {missing}"


def _ability(not_built: str | None, not_run: str | None) -> str:
    if not_built:
        return f"no: {not_built}"
    return f"builds, does not run: {not_run}" if not_run else "builds and runs"
