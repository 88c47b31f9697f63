"""What a person should know before saying yes."""

from onprem_llm.planning.addresses import EVERY_INTERFACE
from onprem_llm.planning.replicas import PlannedReplica
from onprem_llm.spec.deployment import Deployment
from onprem_llm.spec.site import Site


def deployment_warnings(site: Site, deployment: Deployment, replicas: tuple[PlannedReplica, ...]) -> tuple[str, ...]:
    """Say what is unusual about this deployment."""
    warnings = []
    if any(replica.claim.address == EVERY_INTERFACE for replica in replicas):
        warnings.append(
            f"{deployment.name} listens on every interface of its host ({EVERY_INTERFACE}:{deployment.port}): "
            "whoever reaches the host reaches the engine; `listen: cluster` is narrower"
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
