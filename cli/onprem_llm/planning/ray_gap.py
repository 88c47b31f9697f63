"""What becomes of requests while Ray replaces replicas: a gap that is said, and a change that could never be made."""

from collections.abc import Sequence

from onprem_llm.errors import InvalidError
from onprem_llm.planning.ray_nodes_standing import Cluster
from onprem_llm.rendering.ray_serve import RayApplication, application, surge
from onprem_llm.spec.deployment import Deployment


def check_surge(
    cluster: Cluster, before: Sequence[RayApplication], after: Sequence[RayApplication], deployment: Deployment
) -> None:
    """Raise InvalidError where a new replica is to start before an old one stops, and no node has room for it.

    Ray would have it wait, until our time for the start is over.
    """
    new, update = _replacing(before, after, deployment), deployment.update
    if new is None or new.spare or not surge(update, spare=new.spare):
        return
    asked = f"max_surge of {deployment.name} is {update.max_surge}"
    if update.max_surge is None:
        asked = f"max_unavailable of {deployment.name} is 0"
    raise InvalidError(
        f"update.{asked}, and the Ray cluster has no room for one more replica of it: the new one would wait for ever",
        hint="set max_surge: 0 and max_unavailable: 1 in model.yaml, with which an old replica stops first, and "
        f"deploy that (`onprem-llm history {deployment.name} --json` has each revision's); or {cluster.another_node}",
    )


def gap_warning(
    before: Sequence[RayApplication], after: Sequence[RayApplication], deployment: Deployment, why: tuple[str, ...]
) -> tuple[str, ...]:
    """Say that nobody will answer for a while, where that may be so."""
    new, update = _replacing(before, after, deployment), deployment.update
    if new is None:
        return ()
    if any(reason.startswith("served_name:") for reason in why):
        return (
            f"there will be a gap: clients must ask for {deployment.served_name} from now on, and get 404 for the old "
            "name and the new one until the gateway knows it",
        )
    if surge(update, spare=new.spare) or deployment.replica_count > update.max_unavailable:
        return ()
    because = "update.max_surge is 0"
    if update.max_surge is None:
        because = f"the Ray cluster has no room for one more replica of {deployment.name}"
    return (
        f"there may be a gap: {because}, so the old replica stops before the new one starts; requests are answered "
        "with 503 meanwhile",
    )


def _replacing(
    before: Sequence[RayApplication], after: Sequence[RayApplication], deployment: Deployment
) -> RayApplication | None:
    """Return the deployment as it is to be, where replicas of it that stand are replaced by that."""
    old, new = (next((one for one in some if one.deployment.name == deployment.name), None) for some in (before, after))
    return None if old is None or new is None or application(old)["args"] == application(new)["args"] else new
