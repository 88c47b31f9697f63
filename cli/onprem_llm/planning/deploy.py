"""deploy, scale, rollback, restart: one deployment as it is wanted, the others as they are."""

from collections.abc import Mapping
from dataclasses import replace

from onprem_llm.hosts import Current, HostState
from onprem_llm.planning.addresses import Claim, check_ports
from onprem_llm.planning.certificates import certificate_warnings
from onprem_llm.planning.deploy_content import changes_of, endpoints_of, files_of, references_of
from onprem_llm.planning.deploy_parts import Parts
from onprem_llm.planning.fan_out import along_a_chain, fan_out_step
from onprem_llm.planning.fleet import Fleet, only_counts, plan_fleet
from onprem_llm.planning.gaps import gap_warning, idle_warning
from onprem_llm.planning.gateway import PlannedGateway, check_reach, gateway_step, needed
from onprem_llm.planning.out_of_sight import refuse_unreached
from onprem_llm.planning.registry import PlannedRegistry, leaving, leaving_step, plan_registry, registry_step
from onprem_llm.planning.replicas import Revision
from onprem_llm.planning.revisions import canonical_text, differences
from onprem_llm.planning.rollout import largest_gap, plan_rollout
from onprem_llm.planning.routes import plan_routes
from onprem_llm.planning.shared_address import address_steps, plan_shared_address
from onprem_llm.planning.staging import HostWork, check_space, weights_needs
from onprem_llm.planning.steps import Release, pending_step, record_step, remove_ui_step, stage_step, ui_step
from onprem_llm.planning.types import UI_PROJECT, Plan, Step, Wanted, WantedDeployment
from onprem_llm.planning.warnings import deployment_warnings, key_warnings, old_certificates, silent_warning
from onprem_llm.planning.web_ui import PlannedUi, plan_ui
from onprem_llm.spec.site import Site


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
    registry = plan_registry(site, wanted, gateway)
    _check_ports(release.fleet, routes.after, ui, registry, gateway)
    work = _staging(site, item, release.fleet, routes.after, ui, gateway)
    _check_space(work, registry, gateway)
    parts = Parts(site, wanted, item, current, gateway, revision, release, routes, address, ui, work, registry)
    return Plan(
        based_on=current.digest(),
        gateway=gateway.name,
        deployment=release.name,
        verb=wanted.verb,
        revision=release.revision,
        model_yaml=release.text,
        steps=_steps(parts),
        files=files_of(parts),
        changes=changes_of(parts),
        send_bytes=_send_bytes(parts),
        endpoints=endpoints_of(parts),
        warnings=(
            *item.notes,
            *deployment_warnings(site, item.deployment, release.fleet.replicas),
            *release.fleet.tight,
            *silent_warning(revision, release.fleet),
            *key_warnings(wanted, current),
            *certificate_warnings(wanted, current, parts.crew.guards),
            *old_certificates(revision, release.fleet),
            *idle_warning(item.deployment, release.fleet),
            *gap_warning(revision, largest_gap(parts.crew), release.fleet),
        ),
        passed_over=release.fleet.passed_over,
        secrets=references_of(parts),
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


def _steps(parts: Parts) -> tuple[Step, ...]:
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
        registry_step(site, parts.registry, gateway),
        stage_step(site, parts.work, gateway),
        fan_out_step(parts.work),
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
        # Last: hosts pull from it until then, and what was there before is put back from it.
        leaving_step(site, leaving(parts.registry, parts.current, gateway)),
    )
    return tuple(step for step in steps if step is not None)


def _send_bytes(parts: Parts) -> dict[str, int]:
    found = {host: part.bytes for host, part in parts.work.items() if part.bytes}
    if parts.registry and parts.registry.bytes:
        found[parts.gateway.name] = found.get(parts.gateway.name, 0) + parts.registry.bytes
    return found


def _check_space(work: Mapping[str, HostWork], registry: PlannedRegistry | None, gateway: HostState) -> None:
    for part in work.values():
        store = registry.bytes if registry and part.host is gateway else 0
        weights = part.weights.bytes if part.weights else 0
        check_space(part.host, weights=weights, images=part.image_bytes, store=store)
    if registry and gateway.name not in work:
        check_space(gateway, weights=0, images=0, store=registry.bytes)


def _check_ports(
    fleet: Fleet,
    gateways: tuple[PlannedGateway, ...],
    ui: PlannedUi | None,
    registry: PlannedRegistry | None,
    gateway: HostState,
) -> None:
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
    if registry:
        claims.setdefault(gateway.name, []).append(registry.claim)
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
        here = list(hosts.values())
        for name, need in along_a_chain(site, here, weights_needs(site, here, item.weights, item.source)).items():
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
