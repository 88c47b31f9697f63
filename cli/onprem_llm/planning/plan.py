"""The plan: what deploy or down will do, as ordered steps and files."""

from onprem_llm.errors import InvalidError, UnreachableError
from onprem_llm.hosts import Current, HostState
from onprem_llm.planning.copies import with_copies
from onprem_llm.planning.deploy import plan_deploy
from onprem_llm.planning.down import plan_down
from onprem_llm.planning.out_of_sight import refuse_half_seen
from onprem_llm.planning.types import Plan, Wanted
from onprem_llm.spec.site import Site


def plan(site: Site, wanted: Wanted, current: Current) -> Plan:
    """Return the plan; the same input always gives the same plan.

    Raises InvalidError when the hosts cannot carry what is wanted and UnreachableError when what matters is on a host
    that did not answer; nothing was changed in either case.
    """
    gateway = _gateway(current)
    _check_whole(current, gateway)
    _check_served_names(wanted)
    if wanted.remove is not None:
        return with_copies(plan_down(site, wanted, current, gateway, wanted.remove), current)
    refuse_half_seen(current, wanted.focus or "")
    return with_copies(plan_deploy(site, wanted, current, gateway), current)


def _gateway(current: Current) -> HostState:
    gateway = current.gateway
    if gateway is not None:
        return gateway
    if current.unreachable:
        raise UnreachableError(
            f"no host that answered is the gateway; these did not answer: {', '.join(current.unreachable)}",
            hint="the book and the keys are on the gateway host: bring it back and run this again",
        )
    raise InvalidError(
        "no host of the inventory is recorded as the gateway: the hosts are not prepared yet",
        hint="run first: onprem-llm bootstrap INVENTORY",
    )


def _check_whole(current: Current, gateway: HostState) -> None:
    """Refuse to plan on half a look: what was not seen would be taken for absent, and started or sent again."""
    recorded = [host.name for host in current.recorded_gateways]
    if len(recorded) > 1:
        raise InvalidError(
            f"{len(recorded)} hosts are recorded as the gateway, expected one: {', '.join(recorded)}",
            hint="compare /var/lib/onprem-llm on them, and remove the file `gateway` there where the book is not yours",
        )
    errors = gateway.book.errors if gateway.book else ()
    if errors:
        raise InvalidError(
            f"the book on {gateway.name} cannot be read whole",
            details="\n".join(errors),
            hint="mend or remove the files named, or copy the book from a backup; nothing was changed",
        )
    for host in current.hosts:
        blind = [text for text in host.problems if text.startswith(("docker:", "projects:", "weights:"))]
        if blind:
            raise UnreachableError(
                f"{host.name} could not say what it runs and holds",
                details="\n".join(blind),
                hint="run the command again; if it stays so, look at docker and the file systems of that host",
            )


def _check_served_names(wanted: Wanted) -> None:
    seen: dict[str, str] = {}
    for item in wanted.deployments:
        deployment = item.deployment
        other = seen.setdefault(deployment.served_name, deployment.name)
        if other != deployment.name:
            raise InvalidError(
                f"served_name: found {deployment.served_name}, which both {other} and {deployment.name} have",
                hint="clients choose a model by this name: give each deployment its own",
            )
