"""deploy, scale, rollback, restart: one deployment as it is wanted, the others as they are."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from onprem_llm.hosts import Current, HostState
from onprem_llm.planning.addresses import Claim, check_ports
from onprem_llm.planning.certificates import certificate_warnings, renewals, tls_references
from onprem_llm.planning.fleet import Fleet, Standing, only_counts, plan_fleet
from onprem_llm.planning.gaps import gap_warning, idle_warning
from onprem_llm.planning.gateway import PlannedGateway, check_reach, gateway_step, gateway_url, kept_out, needed
from onprem_llm.planning.guards import guards
from onprem_llm.planning.out_of_sight import refuse_unreached
from onprem_llm.planning.replicas import Change as Revision
from onprem_llm.planning.revisions import canonical_text, differences
from onprem_llm.planning.rollout import Crew, largest_gap, plan_rollout, waves_of
from onprem_llm.planning.routes import Routes, plan_routes
from onprem_llm.planning.shared_address import PlannedAddress, address_steps, plan_shared_address
from onprem_llm.planning.staging import HostWork, check_space, weights_needs
from onprem_llm.planning.steps import Release, pending_step, record_step, remove_ui_step, stage_step, ui_step
from onprem_llm.planning.types import UI_PROJECT, Change, Endpoint, Plan, Step, Wanted, WantedDeployment
from onprem_llm.planning.warnings import deployment_warnings, key_warnings, old_certificates, silent_warning
from onprem_llm.planning.web_ui import PlannedUi, plan_ui
from onprem_llm.rendering.haproxy_maps import CLI_KEY
from onprem_llm.spec.site import Site


@dataclass(frozen=True, slots=True)
class _Parts:
    """Everything that a plan is put together from."""

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

    @property
    def fleet(self) -> Fleet:
        return self.release.fleet

    @property
    def crew(self) -> Crew:
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


def plan_deploy(site: Site, wanted: Wanted, current: Current, gateway: HostState) -> Plan:
    """Plan one deployment; InvalidError when the hosts cannot carry it."""
    item = wanted.named(wanted.focus or "")
    if item is None or item.weights is None:
        raise ValueError("plan: the deployment in focus needs its weights' manifest")
    revision, release = _release(site, item, wanted, current)
    check_reach(item.deployment, release.fleet, current)
    routes = plan_routes(site, wanted, current, revision, release.fleet)
    address = plan_shared_address(site, wanted, current)
    ui = plan_ui(site, wanted, gateway)
    _check_ports(release.fleet, routes.after, ui, gateway)
    work = _staging(site, item, release.fleet, routes.after, ui, gateway)
    for part in work.values():
        check_space(part.host, weights=part.weights.bytes if part.weights else 0, images=part.image_bytes)
    parts = _Parts(site, wanted, item, current, gateway, revision, release, routes, address, ui, work)
    return Plan(
        based_on=current.digest(),
        gateway=gateway.name,
        deployment=release.name,
        verb=wanted.verb,
        revision=release.revision,
        model_yaml=release.text,
        steps=_steps(parts),
        files=_files(parts),
        changes=_changes(parts),
        send_bytes={host: part.bytes for host, part in work.items() if part.bytes},
        endpoints=_endpoints(parts),
        warnings=(
            *item.notes,
            *deployment_warnings(site, item.deployment, release.fleet.replicas),
            *silent_warning(revision, release.fleet),
            *key_warnings(wanted, current),
            *certificate_warnings(wanted, current, parts.crew.guards),
            *old_certificates(revision, release.fleet),
            *idle_warning(item.deployment, release.fleet),
            *gap_warning(revision, largest_gap(parts.crew), release.fleet),
        ),
        passed_over=release.fleet.passed_over,
        secrets=_references(parts),
    )


def _release(site: Site, item: WantedDeployment, wanted: Wanted, current: Current) -> tuple[Revision, Release]:
    """Say which revision this is: the book's latest where text and image are the same, else the next."""
    if item.weights is None:
        raise ValueError("plan: the deployment in focus needs its weights' manifest")
    name = item.deployment.name
    entry = current.book.get(name)
    text = canonical_text(item.deployment, item.weights.id)
    why = differences(entry.model_yaml, text) if entry else ()
    number = current.last_revision(name) + 1
    # Placed and resolved first: whether this is a new revision also depends on the image that was found.
    rolls = wanted.verb in {"deploy", "restart"}
    change = Revision(site, item, item.weights, current, number, why, wanted.restart, rolls)
    fleet = plan_fleet(change)
    images = (
        {item.deployment.engine.image: fleet.replicas[0].image.reference}
        if fleet.replicas
        else dict(entry.images if entry else {})
    )
    if entry and entry.model_yaml == text and dict(entry.images) == images:
        change = replace(change, revision=entry.revision)
        fleet = plan_fleet(change)
    changes = wanted.restart or not only_counts(why)
    if entry and fleet.silent and not fleet.replicas and changes:
        refuse_unreached(current, name, {project: entry.replicas[project].host for project in fleet.silent})
    return change, Release(name, change.revision, text, images, fleet)


def _steps(parts: _Parts) -> tuple[Step, ...]:
    site, gateway, routes = parts.site, parts.gateway, parts.routes
    rollout = plan_rollout(parts.crew)
    names = parts.names
    moving = bool(rollout.waves or rollout.leave)
    during = gateway_step(site, routes.during, names, gateway, "Let the gateway admit old and new replicas")
    admitting = moving and routes.running and any(needed(site, one, names) for one in routes.during)
    after = gateway_step(site, routes.after, names, gateway, "Tell the gateway")
    told = any(needed(site, one, names) for one in routes.after) or any(r.rekeyed for r in parts.fleet.replicas)
    if admitting:
        # The old ones come back one after another too, so the gateway must know them again before that.
        last = routes.between[max(routes.between)] if routes.between else routes.during
        again = gateway_step(site, last, names, gateway, "Let the gateway admit old and new replicas again")
        during = Step(during.kind, during.title, during.orders, (parts.before,))
        after = Step(after.kind, after.title, after.orders, (again,))
    elif routes.running:
        after = Step(after.kind, after.title, after.orders, (parts.before,))
    entry = parts.current.book.get(parts.release.name)
    record = record_step(gateway, entry, parts.release, parts.wanted.verb)
    steps = (
        stage_step(site, parts.work),
        pending_step(parts.current.gateways, entry, parts.release),
        rollout.start,
        during if admitting else None,
        *rollout.waves,
        rollout.leave,
        after if told or moving else None,
        record,
        rollout.remove,
        *address_steps(site, parts.address, gateway),
        ui_step(site, parts.ui, gateway),
        remove_ui_step(site, parts.ui, gateway),
    )
    return tuple(step for step in steps if step is not None)


def _between(parts: _Parts) -> dict[int, Step]:
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


def _check_ports(fleet: Fleet, gateways: tuple[PlannedGateway, ...], ui: PlannedUi | None, gateway: HostState) -> None:
    claims: dict[str, list[Claim]] = {}
    hosts = {gateway.name: gateway}
    for replica in fleet.replicas:
        hosts[replica.host.name] = replica.host
        claims.setdefault(replica.host.name, []).append(replica.claim)
    for one in gateways:
        hosts[one.host.name] = one.host
        claims.setdefault(one.host.name, []).append(one.claim)
    if ui and ui.outcome:
        claims.setdefault(gateway.name, []).append(ui.claim)
    gone_ui = {UI_PROJECT} if ui and ui.removed else set()
    for name, wanted in claims.items():
        going = {s.project for s in fleet.leaving if s.host.name == name and not s.serving}
        check_ports(hosts[name], wanted, going | (gone_ui if name == gateway.name else set()))


def _staging(
    site: Site,
    item: WantedDeployment,
    fleet: Fleet,
    gateways: tuple[PlannedGateway, ...],
    ui: PlannedUi | None,
    gateway: HostState,
) -> dict[str, HostWork]:
    work: dict[str, HostWork] = {}
    hosts = {replica.host.name: replica.host for replica in fleet.replicas}
    if item.weights is not None:
        for name, need in weights_needs(site, list(hosts.values()), item.weights, item.source).items():
            work.setdefault(name, HostWork(hosts[name])).weights = need
    wanted = [(replica.host, replica.image) for replica in fleet.replicas]
    wanted += [(one.host, one.image) for one in gateways]
    if ui and ui.image:
        wanted.append((gateway, ui.image))
    for host, image in wanted:
        if image.order is not None:
            part = work.setdefault(host.name, HostWork(host))
            if all(other.order != image.order for other in part.images):
                part.images.append(image)
    return work


def _files(parts: _Parts) -> dict[str, dict[str, dict[str, str]]]:
    files: dict[str, dict[str, dict[str, str]]] = {}
    for replica in parts.fleet.replicas:
        rendered = replica.outcome.rendered
        files.setdefault(replica.host.name, {})[rendered.project] = dict(rendered.files)
    for one in parts.routes.all:
        files.setdefault(one.host.name, {})[one.variant] = dict(one.outcome.rendered.files)
    for shared in parts.address:
        if shared.outcome:
            rendered = shared.outcome.rendered
            files.setdefault(shared.host.name, {})[rendered.project] = dict(rendered.files)
    if parts.ui and parts.ui.outcome:
        files.setdefault(parts.gateway.name, {})[UI_PROJECT] = dict(parts.ui.outcome.rendered.files)
    return files


def _changes(parts: _Parts) -> tuple[Change, ...]:
    changes: list[Change] = []
    for name, part in parts.work.items():
        for image in part.images:
            subject = f"image {(image.order or {})['ref']}"
            changes.append(Change(name, subject, "update" if not image.bytes else "create", (image.reason or "",)))
        if part.weights and part.weights.change:
            changes.append(part.weights.change)
    changes += [replica.outcome.change for replica in parts.fleet.replicas]
    staying = {replica.project for replica in parts.fleet.replicas}
    for standing in parts.fleet.leaving:
        why = "another one has its name" if standing.project in staying else _why_leaving(standing, parts.fleet)
        changes.append(Change(standing.host.name, standing.project, "remove", (why,)))
    changes += renewals(parts.site, parts.current, parts.crew.guards)
    changes += [_gateway_change(parts, one) for one in parts.routes.after]
    changes += [one.change for one in parts.address]
    if parts.ui and parts.ui.change:
        changes.append(parts.ui.change)
    return tuple(changes)


def _why_leaving(standing: Standing, fleet: Fleet) -> str:
    reasons = fleet.giving_way.get(standing.project)
    if reasons is None:
        return "it is not wanted any more"
    return ": ".join(text for text in ("a new one takes its place", "; ".join(reasons)) if text)


def _gateway_change(parts: _Parts, planned: PlannedGateway) -> Change:
    change = planned.outcome.change
    names = [item.deployment.name for item in parts.wanted.deployments]
    if change.action == "keep" and needed(parts.site, planned, names):
        return Change(change.host, change.subject, "update", planned.moved or ("its keys or certificate",))
    return change


def _endpoints(parts: _Parts) -> tuple[Endpoint, ...]:
    site, gateway, deployment = parts.site, parts.gateway, parts.item.deployment
    url = f"{gateway_url(site, gateway)}/v1"
    key = site.key_path(f"client-{CLI_KEY}")
    found = [Endpoint("api", deployment.name, gateway.name, url, deployment.served_name, key)]
    if parts.ui and parts.ui.serves:
        page = parts.ui.url(gateway)
        password = site.key_path("open-webui-admin")
        found.append(Endpoint("ui", UI_PROJECT, gateway.name, page, site.open_webui.admin_email, password))
    return tuple(found)


def _references(parts: _Parts) -> dict[str, dict[str, dict[str, str]]]:
    own = {name: dict(reference) for name, reference in parts.item.env_references.items()}
    references = {replica.project: own for replica in parts.fleet.replicas if own}
    if parts.ui and parts.ui.outcome and parts.wanted.ui_env_references:
        references[UI_PROJECT] = {name: dict(ref) for name, ref in parts.wanted.ui_env_references.items()}
    return references | tls_references(parts.site)
