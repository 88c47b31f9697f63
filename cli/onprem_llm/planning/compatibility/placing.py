"""What the table says while replicas are placed: which GPUs of which host are passed over, and how to say it."""

from collections.abc import Callable, Iterable

from onprem_llm.hosts import Gpu, HostState
from onprem_llm.planning.compatibility.judging import Asked, Judged, Refusal, asked_of
from onprem_llm.planning.types import WantedDeployment


class Compatibility:
    """The table's word on the hosts of one deployment."""

    def __init__(self, asked: Asked, why: Iterable[str], *, known: bool) -> None:
        """Take the deployment; `why` is what changed of one that the book has (`known`)."""
        self.asked = asked
        self._same_image = known and not any(reason.startswith("engine.image") for reason in why)

    def unsuited(self, host: HostState, project: str) -> Callable[[Gpu], str | None]:
        """Return what says of a GPU of this host why a replica cannot run there; None where it can, or is not judged.

        A replica that is there with the same image is not sent away for the image's sake: it may well run.
        """
        spared = self._same_image and project in host.projects
        return lambda gpu: _text(self.asked.of(host, (gpu,)), numbers_only=spared) or None

    def refusal(self, hosts: Iterable[HostState]) -> Refusal | None:
        """Say that no host with enough GPUs could run it; None where one could, or has none."""
        judged = [one for host in hosts if (one := self.asked.of_host(host)) is not None]
        return self.asked.refusal(judged) if judged and all(one.refused for one in judged) else None


def _text(judged: Judged, *, numbers_only: bool) -> str:
    return (judged.without_image() if numbers_only else judged).refused


def compatibility_of(item: WantedDeployment, why: Iterable[str], *, known: bool) -> Compatibility | None:
    """Return what places a deployment's replicas; None where nothing is judged."""
    asked = asked_of(item.deployment, item.files)
    return Compatibility(asked, why, known=known) if asked else None
