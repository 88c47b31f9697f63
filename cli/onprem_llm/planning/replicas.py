"""One replica of the deployment that is being changed: rendered and compared with what its host has."""

from dataclasses import dataclass

from onprem_llm.hosts import Current, HostState
from onprem_llm.planning.addresses import Claim
from onprem_llm.planning.certificates import taken_up
from onprem_llm.planning.difference import Outcome, SecretEntry, compare, looping
from onprem_llm.planning.placement import Placement, access_path, device_names
from onprem_llm.planning.places import place, short
from onprem_llm.planning.rotation import away
from onprem_llm.planning.scheduled import is_off
from onprem_llm.planning.staging import HostImage, image_for
from onprem_llm.planning.types import ImageSource, WantedDeployment
from onprem_llm.rendering.ranks import Rank
from onprem_llm.rendering.vllm import Replica, draft
from onprem_llm.spec.deployment import Deployment, GpuAccess
from onprem_llm.spec.site import Site
from onprem_llm.spec.weights_identity import WeightsManifest


@dataclass(frozen=True, slots=True)
class PlannedReplica:
    """One replica of the new revision on its host; on several, `others` are its further ranks on theirs."""

    placement: Placement
    image: HostImage
    claim: Claim
    outcome: Outcome
    secrets: tuple[SecretEntry, ...]
    serving: bool  # it takes requests now, so it must be drained before it is touched
    off: bool = False  # its schedule leaves it out now, and it does not run: it is rendered, and stays stopped
    rekeyed: bool = False  # its key is not the gateway's any more: what routes to it now cannot route to the new one
    rank: Rank | None = None
    others: "tuple[PlannedReplica, ...]" = ()

    @property
    def ranks(self) -> "tuple[PlannedReplica, ...]":
        """All of its projects, each on a host of its own."""
        return (self, *self.others)

    @property
    def answers(self) -> bool:
        """Tell whether requests come to it: they do not to further ranks."""
        return self.rank is None or self.rank.rank == 0

    @property
    def project(self) -> str:
        """The project's name."""
        return self.placement.project

    @property
    def revision(self) -> int:
        """The revision that it will answer as: an older one where this revision renders the same."""
        return self.outcome.revision or 0

    @property
    def replaced(self) -> bool:
        """Tell whether a replica that serves is taken away for a while."""
        return self.serving and self.outcome.change.action in {"update", "restart"}

    @property
    def host(self) -> HostState:
        """The host."""
        return self.placement.host


@dataclass(frozen=True, slots=True)
class Revision:
    """What all replicas of a deployment are planned with: the revision that is to be, and why."""

    site: Site
    wanted: WantedDeployment
    manifest: WeightsManifest
    current: Current
    revision: int
    why: tuple[str, ...] = ()
    restart: bool = False  # asked for, though nothing differs
    # Engines may start anew for no more than a newer certificate. Other verbs (move, scale) say nothing of restarts,
    # and what mends a site must not depend on room for them.
    rolls: bool = False

    @property
    def deployment(self) -> Deployment:
        """The deployment."""
        return self.wanted.deployment

    @property
    def engine_tls(self) -> bool:
        """Tell whether the gateway speaks TLS with the engines."""
        return speaks_tls(self.site, self.deployment, self.current)


def speaks_tls(site: Site, deployment: Deployment, current: Current) -> bool:
    """Tell whether the engines of a deployment speak TLS: where hosts are several, unless the site says."""
    setting = site.gateway.engine_tls
    several = len(current.hosts) + len(current.unreachable) > 1
    return setting == "on" or (setting == "auto" and several and deployment.listen != "local")


def plan_replica(change: Revision, placement: Placement, claim: Claim, rank: Rank | None = None) -> PlannedReplica:
    """Render a placed replica, or one rank of it, and compare it with what its host has."""
    deployment, host, current = change.deployment, placement.host, change.current
    entry = current.book.get(deployment.name)
    recorded = entry.images.get(deployment.engine.image) if entry else None
    image = image_for(host, change.wanted.image or ImageSource(deployment.engine.image), recorded)
    why = change.why + _image_reason(deployment, recorded, image)
    outcome = _outcome(change, placement, image, claim, why, rank)
    entries = (SecretEntry("VLLM_API_KEY", (deployment.name,)),)
    rekeyed = _rekeyed(deployment.name, placement, current)
    serving = in_service(host, placement.project, current) and not rekeyed
    off = is_off(deployment, host, placement.project)
    return PlannedReplica(placement, image, claim, outcome, entries, serving, off, rekeyed, rank)


def _outcome(
    change: Revision,
    placement: Placement,
    image: HostImage,
    claim: Claim,
    why: tuple[str, ...],
    rank: Rank | None,
) -> Outcome:
    deployment, host = change.deployment, placement.host
    off = is_off(deployment, host, placement.project)

    def compared(access: GpuAccess | None) -> Outcome:
        wanted = draft(_replica(change, placement, image, claim, access, rank))
        secrets = _secrets(change.wanted, host, change.current)
        found = compare(host, wanted, revision=change.revision, image_id=image.id, secrets=secrets, why=why, off=off)
        if off:
            return found
        if change.restart:
            found = found.restarted("asked for")
        answers = rank is None or rank.rank == 0  # the others show no certificate to anybody
        if change.rolls and answers and (reason := newer_certificate(change, host, placement.project)):
            found = found.restarted(reason)
        return found

    outcome = compared(access_path(deployment, host))
    if outcome.needed and _runs_by_cdi(deployment, host, placement.project):
        # The specification does not fit for a while: nothing that starts can use it, and what runs does not need it.
        as_it_is = compared("cdi")
        return outcome if as_it_is.needed else as_it_is
    return outcome


def newer_certificate(change: Revision, host: HostState, project: str) -> str | None:
    """Say why an engine must start anew for its certificate's sake; None where it need not, or speaks no TLS."""
    return taken_up(host, project, change.current.gateway) if change.engine_tls else None


def _rekeyed(name: str, placement: Placement, current: Current) -> bool:
    own = placement.host.env_secrets.get(placement.project, {}).get("VLLM_API_KEY")
    return own is not None and current.gateway is not None and own != current.gateway.keys.get(name)


def serves(host: HostState, project: str) -> bool:
    """Tell whether a project takes requests now, as far as its containers say."""
    found = host.projects.get(project)
    return found is not None and any(
        container.state == "running" and container.health in {"healthy", None} for container in found.containers
    )


def runs(host: HostState, project: str) -> bool:
    """As `serves`, or on the way there: worth going back to where a change fails."""
    found = host.projects.get(project)
    return (
        found is not None
        and bool(found.containers)
        and all(c.state == "running" and c.health != "unhealthy" and not looping(c) for c in found.containers)
    )


def in_service(host: HostState, project: str, current: Current) -> bool:
    """As `serves`, but a host that is drained or lost gets no requests: what runs there can be changed at any time."""
    return serves(host, project) and not away(host.name, current)


def _runs_by_cdi(deployment: Deployment, host: HostState, project: str) -> bool:
    """Tell whether a replica has its GPUs by a specification that names by now what is gone."""
    found = host.projects.get(project)
    by_cdi = found is not None and found.label("gpu_access") == "cdi" and deployment.gpu_access is None
    return by_cdi and bool(host.engine.cdi_missing) and runs(host, project)


def _replica(
    change: Revision,
    placement: Placement,
    image: HostImage,
    claim: Claim,
    access: GpuAccess | None,
    rank: Rank | None,
) -> Replica:
    return Replica(
        deployment=change.deployment,
        index=placement.index,
        image=image.reference,
        weights_path=f"{change.site.weights_path}/{change.manifest.id}",
        weights_name=change.manifest.name,
        address=claim.address,
        port=claim.port,
        gpus=tuple(gpu.uuid for gpu in placement.gpus),
        devices=device_names(placement, change.deployment, access),
        gpu_access=access,
        tls_folder=f"{change.site.data_root}/secrets" if change.engine_tls else None,
        rank=rank,
    )


def _secrets(wanted: WantedDeployment, host: HostState, current: Current) -> dict[str, str | None]:
    name = wanted.deployment.name
    made = current.gateway.keys.get(name) if current.gateway else None
    # A host whose own copy of the key is another one gets the gateway's, and the engine must read it anew.
    key = made if host.keys.get(name) == made else None
    user = {env: wanted.env_fingerprints.get(env) for env in wanted.deployment.secret_env}
    return {"VLLM_API_KEY": key, **user}


def _image_reason(deployment: Deployment, recorded: str | None, image: HostImage) -> tuple[str, ...]:
    if recorded is None or recorded == image.id or place(recorded) == place(image.reference):
        return ()
    return (f"image {deployment.engine.image} is another one: {short(recorded)} -> {short(image.reference)}",)
