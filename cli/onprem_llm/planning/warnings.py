"""What a person should know before saying yes."""

from onprem_llm.hosts import Current
from onprem_llm.planning.addresses import EVERY_INTERFACE
from onprem_llm.planning.fleet import Fleet, standing_of
from onprem_llm.planning.replicas import PlannedReplica, serves
from onprem_llm.planning.types import Wanted
from onprem_llm.spec.deployment import Deployment
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
    return tuple(warnings)


def silent_warning(fleet: Fleet, current: Current) -> tuple[str, ...]:
    """Name the replicas that nothing is done to, since their hosts do not answer."""
    hosts = {project: at.host for entry in current.book.values() for project, at in entry.replicas.items()}
    return tuple(f"{project} is left as it is: {hosts[project]} did not answer" for project in fleet.silent)


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


def gap_warning(deployment: Deployment, away: int, fleet: Fleet, why: tuple[str, ...]) -> tuple[str, ...]:
    """Say that nobody will answer for a while, where that is so."""
    renamed = next((reason for reason in why if reason.startswith("served_name:")), None)
    if renamed and (fleet.replaced or fleet.spares):
        return (
            f"there will be a gap: {renamed}; clients must ask for {deployment.served_name} from now on, and replicas "
            "answer to it only once they are replaced",
        )
    if any(replica.rekeyed and serves(replica.host, replica.project) for replica in fleet.replicas):
        return (
            f"there will be a gap: the key between the gateway and {deployment.name} is another one, so its replicas "
            "are restarted at once",
        )
    # New ones and those that do not serve are started before any is taken away.
    serving = len(fleet.replicas) + sum(s.serving for s in fleet.leaving)
    if not away or away < serving:
        return ()
    return (
        f"there will be a gap: all {serving} replicas of {deployment.name} are replaced at once"
        if serving > 1
        else f"there will be a gap: {deployment.name} has one replica, and no host with its weights has room for a "
        "second one while it is replaced; requests are answered with 503 until the new one is ready",
    )
