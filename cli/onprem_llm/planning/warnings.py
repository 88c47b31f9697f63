"""What a person should know before saying yes."""

from onprem_llm.hosts import Current
from onprem_llm.planning.fleet import Fleet
from onprem_llm.planning.gpu_links import FAR, worst_link
from onprem_llm.planning.placement import access_path
from onprem_llm.planning.replicas import PlannedReplica, Revision, newer_certificate
from onprem_llm.planning.revisions import only_counts
from onprem_llm.planning.standing import standing_of
from onprem_llm.planning.types import Wanted
from onprem_llm.rendering.compose import EVERY_INTERFACE
from onprem_llm.spec.deployment import Deployment
from onprem_llm.spec.engine_args import tensor_size
from onprem_llm.spec.site import Site


def deployment_warnings(site: Site, deployment: Deployment, replicas: tuple[PlannedReplica, ...]) -> tuple[str, ...]:
    """Say what is unusual about this deployment."""
    warnings = []
    if any(replica.claim.address == EVERY_INTERFACE for replica in replicas):
        warnings.append(
            f"{deployment.name} listens on every interface of its host ({EVERY_INTERFACE}:{deployment.port}): "
            "the firewall lets in the gateways only, but `listen: cluster` is narrower"
        )
    if site.open_webui.listen == "all":
        warnings.append("Open WebUI listens on every interface of the gateway host")
    if deployment.trust_remote_code:
        warnings.append(f"{deployment.name} runs Python code from its weights folder (trust_remote_code: true)")
    for replica in replicas:
        engine = replica.host.engine
        if deployment.gpu_access == "runtime" and "nvidia" not in engine.runtimes:
            warnings.append(
                f"{replica.host.name} has no runtime named nvidia (gpu_access: runtime): the start will fail; "
                f"the engine has {', '.join(engine.runtimes) or 'none'}"
            )
        if deployment.gpu_access == "cdi" and not (engine.cdi and engine.cdi_devices):
            why = "no CDI specification in /etc/cdi or /var/run/cdi" if engine.cdi else "CDI switched off in its engine"
            warnings.append(f"{replica.host.name} has {why} (gpu_access: cdi): the start will fail")
        warnings += _far_apart(deployment, replica)
        warnings += _cdi_warnings(deployment, replica)
    return tuple(warnings)


def _far_apart(deployment: Deployment, replica: PlannedReplica) -> tuple[str, ...]:
    """Say that a model is split over GPUs of both processors: each token crosses there and back in each layer."""
    gpus, size = replica.placement.gpus, tensor_size(deployment.engine.engine_args) or 1
    # With a pipeline too, which GPUs share a stage is the engine's matter.
    if size < 2 or size != len(gpus) or worst_link(gpus, replica.host.links) != FAR:
        return ()
    return (
        f"{replica.project} on {replica.host.name}: some of its {len(gpus)} GPUs reach each other through both "
        f"processors alone ({FAR}), which is slow for tensor_parallel_size: fewer GPUs, or pipeline_parallel_size over "
        "the processors, may be faster",
    )


def _cdi_warnings(deployment: Deployment, replica: PlannedReplica) -> list[str]:
    """Say where a specification does not fit its host: the driver or the cards have changed since it was made."""
    engine, mend = replica.host.engine, "`onprem-llm bootstrap` makes it anew"
    if deployment.resources.gpus == 0 or not engine.cdi:
        return []
    if engine.cdi_missing:
        then = "the start will fail"
        project = replica.host.projects.get(replica.project)
        if project is not None and project.label("gpu_access") == "cdi" and not replica.outcome.needed:
            then = f"{replica.project} runs on, and would not start again"
        elif access_path(deployment, replica.host) != "cdi":
            then = "GPUs are given by --gpus instead"
        return [
            f"{replica.host.name}: its CDI specification names {engine.cdi_missing[0]}, which is gone: {then}; {mend}"
        ]
    names = [name for name in engine.cdi_devices if name.startswith("GPU-")]
    unknown = [gpu.uuid for gpu in replica.placement.gpus if names and gpu.uuid not in names]
    if unknown and access_path(deployment, replica.host) == "cdi":
        return [f"{replica.host.name}: its CDI specification does not know {unknown[0]}: the start will fail; {mend}"]
    return []


def silent_warning(change: Revision, fleet: Fleet) -> tuple[str, ...]:
    """Name the replicas that nothing is done to: their hosts do not answer, or are left out and miss the change."""
    current, hosts = change.current, _hosts(change)
    silent = [project for project in fleet.silent if hosts[project] not in current.left_out]
    warnings = [f"{project} is left as it is: {hosts[project]} did not answer" for project in silent]
    warnings += [
        f"{project} on {hosts[project]} is not wanted any more and cannot be removed now: it gets no requests from now "
        "on, and the next deploy that reaches the host removes it"
        for project in fleet.forgotten
    ]
    reached = {replica.revision for replica in fleet.replicas}
    behind: dict[int, list[str]] = {}
    if not change.why or not only_counts(change.why):
        for project, revision in fleet.silent.items():
            if project not in silent and revision not in reached:
                behind.setdefault(revision, []).append(f"{project} on {hosts[project]}")
    renamed = next((reason for reason in change.why if reason.startswith("served_name:")), None)
    out = f"; they get no requests until then, since they answer to the old name ({renamed})" if renamed else ""
    warnings += [
        f"not changed, since --limit leaves them out: {', '.join(where)}. They stay on revision {revision}, beside "
        f"revision {change.revision}, until a deploy without --limit{out}"
        for revision, where in behind.items()
    ]
    return tuple(warnings)


def old_certificates(change: Revision, fleet: Fleet) -> tuple[str, ...]:
    """Name the replicas that go on with a certificate from before their host's was renewed, and what ends that."""
    name = change.deployment.name
    until = f" until it starts anew: onprem-llm restart {name}"
    if change.rolls:  # and yet it is left alone
        until = (
            f": update.max_unavailable of {name} is 0, and there is no room for a replica more; free a GPU on a host "
            "that has the weights, or set max_unavailable to 1, and deploy again"
        )
    return tuple(
        f"{replica.project} on {replica.host.name} goes on with an old certificate{until}"
        for replica in fleet.replicas
        if replica.outcome.change.action == "keep" and newer_certificate(change, replica.host, replica.project)
    )


def _hosts(change: Revision) -> dict[str, str]:
    entry = change.current.book.get(change.deployment.name)
    if entry is None:
        return {}
    unseen = change.current.unreachable
    return {
        project: next((host for host in at.hosts if host in unseen), at.host) for project, at in entry.replicas.items()
    }


def key_warnings(wanted: Wanted, current: Current) -> tuple[str, ...]:
    """Name the other deployments whose replicas have another key than the gateway host: it cannot route to them."""
    names = [item.deployment.name for item in wanted.deployments if item.deployment.name != wanted.focus]
    keys = current.gateway.keys if current.gateway else {}
    return tuple(
        f"the key of {name} on the gateway host is not the one that its replicas have: deploy {name} again"
        for name in names
        if any(s.host.env_secrets.get(s.project, {}).get("VLLM_API_KEY") not in {None, keys.get(name)}
               for s in standing_of(name, current))
    )  # fmt: skip
