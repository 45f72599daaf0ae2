"""What there is to build and to run with: this machine and its targets. Needs nothing of the builder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from fimaq_deploy.engines.cuda import Gpu, ask_driver
from fimaq_deploy.engines.machine import Environment, describe_environment
from fimaq_deploy.engines.provider_libraries import ProviderLibrary, provider_libraries
from fimaq_deploy.engines.runtimes import Runtime, every_runtime, runtime_packages
from fimaq_deploy.engines.tensorrt_library import ENGINES, not_for
from fimaq_deploy.target.kernels import in_words


@dataclass(frozen=True)
class Ability:
    """One target. not_built, not_run: why nothing can be built for it here, or run; None where it can."""

    runtime: Runtime
    not_built: str | None
    not_run: str | None

    def document(self) -> dict[str, Any]:
        """For programs."""
        names = {"name": self.runtime.name, "title": self.runtime.title}
        return {**names, "not_built": self.not_built, "not_run": self.not_run, "remark": self.runtime.remark or None}


@dataclass(frozen=True)
class GpuAbility:
    """One GPU. not_for: why a target has no engine for its generation, None where it has, by the target's name."""

    gpu: Gpu
    not_for: Mapping[str, str | None]

    @classmethod
    def of(cls, gpu: Gpu) -> GpuAbility:
        return cls(gpu, {name: not_for(name, gpu.capability) for name in ENGINES})

    def document(self) -> dict[str, Any]:
        """For programs."""
        told = {"name": self.gpu.name, "compute_capability": in_words(self.gpu.capability)}
        return {**told, "memory_bytes": self.gpu.memory_bytes, "not_for": dict(self.not_for)}


@dataclass(frozen=True)
class Machine:
    """This machine, its software, and what it can do for each target.

    cuda: the newest CUDA that its driver runs. providers: ONNX Runtime's libraries, and what they miss.
    """

    environment: Environment
    abilities: tuple[Ability, ...]
    gpus: tuple[GpuAbility, ...] = ()
    cuda: tuple[int, int] | None = None
    providers: tuple[ProviderLibrary, ...] = ()

    def document(self) -> dict[str, Any]:
        """For programs."""
        return {
            "schema": "fimaq-deploy/doctor/1",
            "environment": asdict(self.environment),
            "cuda": in_words(self.cuda) if self.cuda else None,
            "gpus": [one.document() for one in self.gpus],
            "onnxruntime_providers": [asdict(one) for one in self.providers],
            "targets": [one.document() for one in self.abilities],
        }


def look_around() -> Machine:
    """What can be built and run here."""
    driver = ask_driver()
    return Machine(
        environment=describe_environment(runtime_packages()),
        abilities=tuple(Ability(runtime, *runtime.availability()) for runtime in every_runtime()),
        gpus=tuple(map(GpuAbility.of, driver.gpus)),
        cuda=driver.cuda,
        providers=provider_libraries(),
    )
