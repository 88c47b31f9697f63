"""What a plan of a deployment is put together from."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from onprem_llm.hosts import Current, HostState
from onprem_llm.planning.fleet import Fleet
from onprem_llm.planning.gateway import gateway_step, kept_out
from onprem_llm.planning.guards import guards
from onprem_llm.planning.image_chain import Passing
from onprem_llm.planning.local_registries import PlannedLocal
from onprem_llm.planning.ray_deploy import PlannedServe
from onprem_llm.planning.registry import PlannedRegistry, leaving
from onprem_llm.planning.replicas import Revision
from onprem_llm.planning.rollout import Crew, waves_of
from onprem_llm.planning.routes import Routes
from onprem_llm.planning.schedules import PlannedSchedule, plan_schedule
from onprem_llm.planning.shared_address import PlannedAddress
from onprem_llm.planning.staging import HostWork
from onprem_llm.planning.steps import Release
from onprem_llm.planning.types import Step, Wanted, WantedDeployment
from onprem_llm.planning.web_ui import PlannedUi
from onprem_llm.spec.site import Site


@dataclass(frozen=True)
class Parts:
    """What was asked for and found, and what was decided of it: the steps and the rest of the plan follow from this."""

    site: Site
    wanted: Wanted
    item: WantedDeployment
    current: Current
    gateway: HostState
    revision: Revision
    release: Release
    routes: Routes
    address: tuple[PlannedAddress, ...]
    ui: PlannedUi | None
    work: Mapping[str, HostWork]
    registry: PlannedRegistry | None = None
    passing: Passing | None = None
    local: tuple[PlannedLocal, ...] = ()
    stranded: tuple[HostState, ...] = ()  # their registries lack what they run from, and are left as they are
    serve: PlannedServe | None = None  # Ray runs the replicas: the fleet is empty

    @property
    def former_registries(self) -> list[tuple[HostState, str]]:
        """Hosts whose registry goes, and why."""
        staying = [*(one.host.name for one in self.local), *(host.name for host in self.stranded)]
        return leaving(self.registry, staying, self.current, self.gateway)

    @property
    def fleet(self) -> Fleet:
        """The deployment's replicas."""
        return self.release.fleet

    @property
    def schedule(self) -> PlannedSchedule:
        """What hosts have of the schedule."""
        return plan_schedule(self.revision, self.fleet, self.current)

    @cached_property
    def crew(self) -> Crew:
        """Who takes part in the change of replicas."""
        guarded = guards(self.current, self.fleet, self.gateway, tls=self.revision.engine_tls)
        routed = {server for one in self.routes.during for server in one.servers}
        between = _between(self) if self.routes.running else {}
        renamed = self.before if any(why.startswith("served_name:") for why in self.revision.why) else None
        return Crew(self.revision, self.fleet, self.current.gateways, guarded, routed, between, renamed)

    @property
    def before(self) -> Step:
        """Load what the gateways had before the change."""
        routes = self.routes
        return gateway_step(self.site, routes.before, routes.known, self.gateway, "Let the gateway route as before")

    @property
    def names(self) -> list[str]:
        """All deployments that are to be."""
        return [item.deployment.name for item in self.wanted.deployments]


def _between(parts: Parts) -> dict[int, Step]:
    """Tell the gateway of replicas that listen elsewhere once they are replaced; they stay out until they are asked."""
    steps: dict[int, Step] = {}
    waves = waves_of(parts.revision, parts.fleet)
    last = parts.routes.during
    for number, planned in sorted(parts.routes.between.items()):
        away = [f"{parts.release.name}/{replica.project}" for replica in waves[number - 1]]
        load = gateway_step(parts.site, planned, parts.names, parts.gateway, "Tell the gateway where they listen now")
        back = gateway_step(parts.site, last, parts.names, parts.gateway, "Tell the gateway where they listened")
        steps[number] = kept_out(load, away, (kept_out(back, away),))
        last = planned
    return steps
