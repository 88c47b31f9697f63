"""What a person should know of a replica that is about to be spread over hosts."""

from onprem_llm.hosts import Current
from onprem_llm.planning.fleet import Fleet
from onprem_llm.planning.placement import is_lost
from onprem_llm.planning.replicas import PlannedReplica
from onprem_llm.spec.deployment import Deployment
from onprem_llm.spec.gangs import PIPELINE, TENSOR, size_of
from onprem_llm.spec.network_facts import bad_lines

SHOWN = 3  # lines, of all that are bad between a replica's hosts


def spread_warnings(deployment: Deployment, fleet: Fleet, current: Current) -> tuple[str, ...]:
    """Say what is unusual about replicas that start over several hosts; nothing of those that stand."""
    starting = [one for one in fleet.replicas if one.others and one.outcome.change.action == "create"]
    if not starting:
        return ()
    nodes = len(starting[0].ranks)
    lines = [text for one in starting for text in _lines(one, current)]
    return (*_silent(deployment, nodes, current), *_tensor(deployment, nodes), *lines)


def _lines(starting: PlannedReplica, current: Current) -> tuple[str, ...]:
    """Every step of every part waits for the slowest line."""
    network, hosts = current.network, [rank.host.name for rank in starting.ranks]
    bad = bad_lines(network, hosts)
    if network is None or not bad:
        return ()
    more = f" and {len(bad) - SHOWN} more" if len(bad) > SHOWN else ""
    return (
        f"{starting.project} goes over lines with faults: {'; '.join(bad[:SHOWN])}{more} (known "
        f"since {network.measured_at} at the latest). Of the hosts that can carry it no {len(hosts)} were found with "
        "good lines only. Mend them and measure again: onprem-llm check --network",
    )


def _silent(deployment: Deployment, nodes: int, current: Current) -> tuple[str, ...]:
    """A host that does not answer may be the one that could carry it alone."""
    resources = deployment.resources
    allowed = [host for host in current.unreachable if not resources.hosts or host in resources.hosts]
    silent = [host for host in allowed if not is_lost(current, host)]
    if resources.nodes != "auto" or not silent:
        return ()
    return (
        f"{deployment.name} goes over {nodes} hosts, since none that was looked at has {resources.gpus} GPUs of one "
        f"model; {', '.join(silent)} was not, and may. It stays as it starts: bring that host back first, or write "
        f"resources.nodes: {nodes}",
    )


def _tensor(deployment: Deployment, nodes: int) -> tuple[str, ...]:
    """Each layer of each token waits for the network where tensor parallelism leaves a host."""
    gpus, size = deployment.resources.gpus, size_of(deployment.engine.engine_args, TENSOR)
    if gpus in (0, "all") or not isinstance(gpus, int) or size <= gpus // nodes:
        return ()
    return (
        f"{TENSOR} {size} goes over hosts with {gpus // nodes} GPUs each: every layer of every token waits for the "
        f"network. {TENSOR}: {gpus // nodes} and {PIPELINE}: {nodes} is what most networks bear",
    )
