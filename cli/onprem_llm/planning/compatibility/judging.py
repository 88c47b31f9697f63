"""Hosts and what they could give a replica, judged by the table; and how a refusal is said."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from onprem_llm.hosts import Gpu, HostState
from onprem_llm.planning.compatibility.images import is_own
from onprem_llm.planning.compatibility.machines import Machine, machine_of
from onprem_llm.planning.compatibility.numbers import Numbers, numbers_of
from onprem_llm.planning.compatibility.table import table
from onprem_llm.planning.compatibility.verdict import Verdict, judge, nearest
from onprem_llm.planning.memory.model_files import ModelFiles
from onprem_llm.planning.offers import model_accepted
from onprem_llm.spec.deployment import Deployment


@dataclass(frozen=True, slots=True)
class Judged:
    """A host with what an engine is given there, and what was said of it."""

    host: HostState
    machine: Machine
    verdict: Verdict

    @property
    def refused(self) -> str:
        """Say why it could not run; nothing where it could."""
        return "; ".join(finding.text for finding in self.verdict.refusals)

    def without_image(self) -> "Judged":
        """Return what is left where the image is believed to run there."""
        return replace(self, verdict=Verdict(tuple(one for one in self.verdict.findings if one.about == "numbers")))


@dataclass(frozen=True, slots=True)
class Refusal:
    """What an error says."""

    message: str
    hint: str
    details: str | None = None


@dataclass(frozen=True, slots=True)
class Asked:
    """What a deployment asks of the hosts that its replicas run on."""

    deployment: Deployment
    numbers: Numbers
    forward: bool  # the image's compatibility libraries are switched on

    @property
    def image(self) -> str:
        """The engine's image, as model.yaml names it."""
        return self.deployment.engine.image

    def of(self, host: HostState, gpus: Iterable[Gpu]) -> Judged:
        """Judge some GPUs of a host."""
        machine = machine_of(host, gpus)
        return Judged(host, machine, judge(machine, self.image, self.numbers, forward=self.forward))

    def of_host(self, host: HostState) -> Judged | None:
        """Judge what a host could give one replica, where there are any those that it runs on; None: too few GPUs."""
        judged = [self.of(host, gpus) for gpus in self.offers(host)]
        return next((one for one in judged if not one.refused), judged[0] if judged else None)

    def offers(self, host: HostState) -> list[tuple[Gpu, ...]]:
        """Return the GPUs of each kind that a host has enough of; all together where a replica takes all."""
        wanted = self.deployment.resources.gpus
        suitable = [gpu for gpu in host.gpus if model_accepted(gpu, self.deployment.resources.gpu_models)]
        if wanted == "all":
            return [tuple(suitable)] if suitable else []
        kinds = [tuple(gpu for gpu in suitable if gpu.name == name) for name in dict.fromkeys(g.name for g in suitable)]
        return [gpus for gpus in kinds if len(gpus) >= wanted]

    def refusal(self, judged: Sequence[Judged]) -> Refusal:
        """Name the hosts, what was found and what to do: an image that all of them run, where there is one."""
        instead = nearest([one.machine for one in judged], self.image, self.numbers)
        wrong = [one for one in judged if one.refused]
        if len({one.refused for one in wrong}) == 1:
            hosts = ", ".join(dict.fromkeys(one.host.name for one in wrong))
            return Refusal(f"{hosts}: {wrong[0].refused}", wrong[0].verdict.hint(instead))
        lines = dict.fromkeys(f"  {one.host.name}: {one.refused}: {one.verdict.hint(None)}" for one in wrong)
        return Refusal(
            f"{self.image} cannot run on the hosts that {self.deployment.name} would go to",
            (f"use {instead}, or do" if instead else "do") + " for each host what is said above",
            "\n".join(lines),
        )


def asked_of(deployment: Deployment, files: ModelFiles | None) -> Asked | None:
    """Return what is asked for; None where nothing is judged: no GPUs, or an image of our own."""
    if deployment.resources.gpus == 0 or is_own(deployment.engine.image):
        return None
    switch = deployment.literal_env.get(table().forward.switch, "").strip().lower()
    return Asked(deployment, numbers_of(deployment.engine.engine_args, files), switch in {"1", "true"})
