"""What the gateway routes to before, in the midst of, and after a change."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from onprem_llm.hosts import Current
from onprem_llm.planning.backends import fleet_backend, merged, standing_backend
from onprem_llm.planning.fleet import Fleet
from onprem_llm.planning.gateway import PROJECT, PlannedGateway, plan_gateways
from onprem_llm.planning.ray_routes import ray_backend
from onprem_llm.planning.replicas import PlannedReplica, Revision
from onprem_llm.planning.rollout import waves_of
from onprem_llm.planning.types import Wanted
from onprem_llm.rendering.haproxy import Backend
from onprem_llm.spec.deployment import Deployment, parse_deployment
from onprem_llm.spec.site import Site


@dataclass(frozen=True, slots=True)
class Routes:
    """The gateways' files at three moments; `known` are the deployments of the book so far."""

    before: tuple[PlannedGateway, ...]
    during: tuple[PlannedGateway, ...]
    between: Mapping[int, tuple[PlannedGateway, ...]]  # number of a wave -> after it: its replicas listen elsewhere
    after: tuple[PlannedGateway, ...]
    known: tuple[str, ...]

    @property
    def running(self) -> bool:
        """Tell whether some gateway routes now."""
        return any(one.host.gateway_state is not None and one.host.gateway_state.running for one in self.after)

    @property
    def all(self) -> tuple[PlannedGateway, ...]:
        """All of them, for the files of the seam."""
        return (*self.before, *self.during, *(one for some in self.between.values() for one in some), *self.after)


def plan_routes(site: Site, wanted: Wanted, current: Current, change: Revision, fleet: Fleet) -> Routes:
    """Render the gateways for a change of one deployment."""
    name = change.deployment.name
    rest = [item.deployment for item in wanted.deployments if item.deployment.name != name]
    others = [standing_backend(site, one, current) for one in rest]
    after = (
        ray_backend(site, change.deployment, current)
        if change.deployment.backend == "ray"
        else fleet_backend(change.deployment, fleet, current, tls=change.engine_tls)
    )
    before = _before(site, name, current)
    during = merged(before, after) if before else after
    return Routes(
        plan_gateways(site, wanted, current, [*others, *([before] if before else [])], f"{PROJECT}.before"),
        plan_gateways(site, wanted, current, [*others, during], f"{PROJECT}.during"),
        {
            number: plan_gateways(site, wanted, current, [*others, moved], f"{PROJECT}.during-{number}")
            for number, moved in _moved(before, after, waves_of(change, fleet))
        },
        plan_gateways(site, wanted, current, [*others, after]),
        tuple(current.book),
    )


def routes_without(site: Site, wanted: Wanted, current: Current) -> tuple[PlannedGateway, ...]:
    """Render the gateways for the deployments that are left."""
    left: Sequence[Deployment] = [item.deployment for item in wanted.deployments]
    return plan_gateways(site, wanted, current, [standing_backend(site, one, current) for one in left])


def _moved(
    before: Backend | None, after: Backend, waves: Sequence[Sequence[PlannedReplica]]
) -> Iterator[tuple[int, Backend]]:
    """Yield the waves whose replicas listen elsewhere or otherwise than before, and what is routed to after them."""
    if before is None:
        return
    old, new = ({server.project: server for server in one.servers} for one in (before, after))
    renewed: list[str] = []
    for number, wave in enumerate(waves, 1):
        projects = [replica.project for replica in wave]
        renewed += projects
        if any(project in old and project in new and old[project] != new[project] for project in projects):
            yield number, merged(before, after, renewed)


def _before(site: Site, name: str, current: Current) -> Backend | None:
    entry = current.book.get(name)
    if entry is None:
        return None
    return standing_backend(site, parse_deployment(entry.model_yaml, f"the book's {name}"), current)
