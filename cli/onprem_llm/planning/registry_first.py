"""A plan that is no deployment's, on a site whose images come from a bundle: the registry that has them goes first.

`deploy` fills and starts it with each plan; what merely pulls from it (`cluster up`) may come before any deploy, or
after the last deployment's `down` took it away.
"""

from collections.abc import Mapping
from dataclasses import replace

from onprem_llm.hosts import HostState
from onprem_llm.planning.addresses import check_ports
from onprem_llm.planning.registry import plan_registry, registry_step
from onprem_llm.planning.staging import check_space
from onprem_llm.planning.types import Plan, Wanted
from onprem_llm.probe_values import mappings, text
from onprem_llm.rendering.registry import PROJECT
from onprem_llm.spec.site import Site


def registry_first(site: Site, wanted: Wanted, gateway: HostState, plan: Plan) -> Plan:
    """Return the plan with that step before its own; as it is where nothing is pulled, or the registry needs nothing.

    Of what is wanted the registry alone counts. InvalidError where the gateway host has no room or port for it.
    """
    if not _pulls(plan, f"{gateway.cluster_address}:{site.registry_port}/"):
        return plan
    planned = plan_registry(site, wanted, gateway)
    step = registry_step(site, planned, gateway)
    if planned is None or step is None:
        return plan
    check_ports(gateway, [planned.claim], set())
    check_space(gateway, weights=0, images=planned.image.bytes + _sent(plan, gateway.name), store=planned.coming)
    files = {host: dict(projects) for host, projects in plan.files.items()}
    files.setdefault(gateway.name, {})[PROJECT] = dict(planned.outcome.rendered.files)
    return replace(
        plan,
        steps=(step, *plan.steps),
        changes=(planned.outcome.change, *plan.changes),
        files=files,
        send_bytes=_more(plan.send_bytes, gateway.name, planned.bytes),
    )


def _pulls(plan: Plan, place: str) -> bool:
    orders = (order for step in plan.steps for order in step.orders.values())
    return any((text(image, "pull") or "").startswith(place) for one in orders for image in mappings(one.get("images")))


def _sent(plan: Plan, host: str) -> int:
    return plan.send_bytes.get(host, 0)


def _more(sent: Mapping[str, int], host: str, size: int) -> dict[str, int]:
    return {**sent, host: sent.get(host, 0) + size} if size else dict(sent)
