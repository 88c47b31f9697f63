"""What a person should know before saying yes: who answers while replicas are replaced, and afterwards."""

from onprem_llm.planning.fleet import Fleet
from onprem_llm.planning.replicas import Revision, serves
from onprem_llm.spec.deployment import Deployment


def gap_warning(change: Revision, largest: int, fleet: Fleet) -> tuple[str, ...]:
    """Say that nobody will answer for a while, where that is so; `largest`: how many are replaced at once."""
    deployment, name = change.deployment, change.deployment.name
    renamed = next((reason for reason in change.why if reason.startswith("served_name:")), None)
    if renamed and (fleet.replaced or fleet.spares):
        return (
            f"there will be a gap: {renamed}; clients must ask for {deployment.served_name} from now on, and replicas "
            "answer to it only once they are replaced",
        )
    if any(replica.rekeyed and serves(replica.host, replica.project) for replica in fleet.replicas):
        return (
            f"there will be a gap: the key between the gateway and {name} is another one, so its replicas "
            "are restarted at once",
        )
    if not largest or not fleet.in_rotation:
        return ()
    if largest < fleet.in_rotation:
        return _few_warning(deployment, fleet.in_rotation - largest, fleet)
    if fleet.in_rotation > 1:
        every = f"all {fleet.in_rotation} replicas of {name}{_beside(fleet)}"
        return (f"there will be a gap: {every} are replaced at once",)
    which = f"the one of {name} that serves is replaced" if deployment.slots > 1 else f"{name} has one replica"
    alone = "no host with its weights has room for another one beside it meanwhile"
    if deployment.update.max_surge == 0:
        alone = "update.max_surge is 0: no other one may run beside it meanwhile"
    return (
        f"there will be a gap: {which}{_beside(fleet)}, and {alone}; requests are answered with 503 until the new one "
        "is ready",
    )


def idle_warning(deployment: Deployment, fleet: Fleet) -> tuple[str, ...]:
    """Say that nobody will answer once the change is done, where that is so."""
    # One that a gateway has for down may be on its way: status says that better.
    at_all = fleet.in_rotation or fleet.off or any(replica.serving for replica in fleet.replicas)
    if at_all or not (fleet.replicas or fleet.forgotten):
        return ()
    return (
        f"no replica of {deployment.name}{_beside(fleet)} is in rotation after this: mend these hosts, or let drained "
        "ones in again (onprem-llm host undrain HOST)",
    )


def _few_warning(deployment: Deployment, left: int, fleet: Fleet) -> tuple[str, ...]:
    """Say that fewer serve meanwhile than model.yaml allows for, since some were away before."""
    if not fleet.away or left >= deployment.slots - len(fleet.off) - deployment.update.max_unavailable:
        return ()
    return (
        f"at times {left} of {deployment.slots} replicas of {deployment.name} will be in rotation, which is fewer "
        f"than update.max_unavailable says{_beside(fleet)}",
    )


def _beside(fleet: Fleet) -> str:
    """Name those that get no requests anyway."""
    away = ", ".join(f"{project} on {host}" for project, host in fleet.away.items())
    return f" (out of rotation already: {away})" if away else ""
