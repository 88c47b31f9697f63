"""deploy, scale, rollback, restart: one deployment as it is wanted, the others as they are."""

from collections.abc import Sequence
from dataclasses import replace

from onprem_llm.book_state import BookEntry
from onprem_llm.hosts import Current, HostState
from onprem_llm.planning.certificates import certificate_warnings
from onprem_llm.planning.compatibility.check import check_replicas
from onprem_llm.planning.deploy_checks import check_claims, check_room
from onprem_llm.planning.deploy_content import changes_of, endpoints_of, files_of, references_of
from onprem_llm.planning.deploy_parts import Parts
from onprem_llm.planning.fan_out import along_a_chain, fan_out_step
from onprem_llm.planning.fleet import Fleet, plan_fleet
from onprem_llm.planning.gang_warnings import spread_warnings
from onprem_llm.planning.gaps import gap_warning, idle_warning
from onprem_llm.planning.gateway import PlannedGateway, check_reach, gateway_step, needed
from onprem_llm.planning.image_chain import Passing, pass_on, pass_on_step
from onprem_llm.planning.local_registries import local_step, plan_local, stranded, stranded_warning
from onprem_llm.planning.out_of_sight import refuse_unreached
from onprem_llm.planning.places import place
from onprem_llm.planning.ray_checks import check_same_backend, check_text
from onprem_llm.planning.ray_deploy import PlannedServe, plan_moved, plan_serve
from onprem_llm.planning.ray_tell import serve_step
from onprem_llm.planning.ray_walls import walls_step
from onprem_llm.planning.registry import leaving_step, plan_registry, registry_step
from onprem_llm.planning.replicas import Revision
from onprem_llm.planning.revisions import canonical_text, differences, only_counts
from onprem_llm.planning.rollout import largest_gap, plan_rollout
from onprem_llm.planning.routes import plan_routes
from onprem_llm.planning.shared_address import address_steps, plan_shared_address
from onprem_llm.planning.staging import HostWork, weights_needs
from onprem_llm.planning.steps import Release, pending_step, record_step, remove_ui_step, stage_step, ui_step
from onprem_llm.planning.types import Plan, Step, Wanted, WantedDeployment
from onprem_llm.planning.warnings import deployment_warnings, key_warnings, old_certificates, silent_warning
from onprem_llm.planning.web_ui import PlannedUi, plan_ui
from onprem_llm.spec.site import Site


def plan_deploy(site: Site, wanted: Wanted, current: Current, gateway: HostState) -> Plan:
    """Plan one deployment; InvalidError when the hosts cannot carry it."""
    item = wanted.named(wanted.focus or "")
    if item is None or item.weights is None:
        raise ValueError("plan: the deployment in focus needs its weights' manifest")
    check_text(item.deployment)
    check_same_backend(item.deployment, current)
    revision, release, serve = _release(site, item, wanted, current)
    unlike = check_replicas(item, release.fleet.projects)
    passing = pass_on(site, wanted, item, current, gateway, release.fleet)
    if passing is not None:
        # What is rendered names an image by the registry that its host pulls from. Nobody changes place for that.
        item = passing.item
        revision, release, serve = _release(site, item, wanted, current)
    parts = _parts(site, wanted, item, current, gateway, revision, release, passing, serve)
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
            *unlike,
            *deployment_warnings(site, item.deployment, release.fleet.projects),
            *spread_warnings(item.deployment, release.fleet, current),
            *release.fleet.tight,
            *(serve.warnings if serve else ()),
            *silent_warning(revision, release.fleet),
            *stranded_warning(site, parts.stranded),
            *key_warnings(wanted, current),
            *certificate_warnings(wanted, current, parts.crew.guards),
            *old_certificates(revision, release.fleet),
            *idle_warning(item.deployment, release.fleet),
            *gap_warning(revision, largest_gap(parts.crew), release.fleet),
        ),
        passed_over=release.fleet.passed_over,
        secrets=references_of(parts),
    )


def _parts(
    site: Site,
    wanted: Wanted,
    item: WantedDeployment,
    current: Current,
    gateway: HostState,
    revision: Revision,
    release: Release,
    passing: Passing | None,
    serve: PlannedServe | None,
) -> Parts:
    check_reach(item.deployment, release.fleet, current)
    routes = plan_routes(site, wanted, current, revision, release.fleet)
    address = plan_shared_address(site, wanted, current)
    ui = plan_ui(site, wanted, gateway)
    registry = plan_registry(site, wanted, gateway)
    local = plan_local(site, wanted, passing, current, gateway, release.fleet)
    check_claims(release.fleet, routes.after, ui, [(gateway, registry.claim)] if registry else [], local, gateway)
    # A move changes gateways, and has no weights at hand.
    holders = serve.cluster.holders if serve and wanted.verb != "move" else ()
    work = _staging(site, item, release.fleet, routes.after, ui, gateway, holders)
    check_room(work, registry, local, gateway)
    idle = stranded(site, wanted, passing, current, gateway, release.fleet)
    return Parts(
        site,
        wanted,
        item,
        current,
        gateway,
        revision,
        release,
        routes,
        address,
        ui,
        work,
        registry,
        passing,
        local,
        idle,
        serve,
    )


def _release(
    site: Site, item: WantedDeployment, wanted: Wanted, current: Current
) -> tuple[Revision, Release, PlannedServe | None]:
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
    if item.deployment.backend == "ray":
        if wanted.gateways_only and entry is not None:
            kept = Release(name, entry.revision, entry.model_yaml, dict(entry.images), Fleet(()))
            return replace(change, revision=entry.revision), kept, plan_moved(site, current, name)
        return _release_on_ray(change, entry, text)
    fleet = plan_fleet(change)
    images = _images(item, entry, fleet)
    if entry and entry.model_yaml == text and dict(entry.images) == images:
        change = replace(change, revision=entry.revision)
        fleet = plan_fleet(change)
    changes = wanted.restart or not only_counts(why)
    if entry and fleet.silent and not fleet.replicas and changes:
        refuse_unreached(current, name, {project: entry.replicas[project].host for project in fleet.silent})
    return change, Release(name, change.revision, text, images, fleet), None


def _release_on_ray(change: Revision, entry: BookEntry | None, text: str) -> tuple[Revision, Release, PlannedServe]:
    """As `_release`. Ray places the replicas: the fleet is empty, and the book has no placement."""
    deployment, same = change.deployment, entry is not None and entry.model_yaml == text
    serve = plan_serve(change.site, change.wanted, change.current, change.why, recorded=same)
    images = {deployment.engine.image: serve.image} if serve.image else {}
    if entry is not None and same and dict(entry.images) == images:
        change = replace(change, revision=entry.revision)
    return change, Release(deployment.name, change.revision, text, images, Fleet(())), serve


def _images(item: WantedDeployment, entry: BookEntry | None, fleet: Fleet) -> dict[str, str]:
    """Return the image as the book is to have it: as it has it where that is the same one under another address.

    Otherwise by an address that all hosts know: what one pulls from its own loopback nobody else can ask for.
    """
    recorded = dict(entry.images) if entry else {}
    if not fleet.replicas:
        return recorded
    ref, found = item.deployment.engine.image, fleet.replicas[0].image.reference
    if ref in recorded and place(recorded[ref]) == place(found):
        return recorded
    shared = item.image.pull if item.image else None
    return {ref: shared if shared and place(shared) == place(found) else found}


def _steps(parts: Parts) -> tuple[Step, ...]:
    site, gateway, routes = parts.site, parts.gateway, parts.routes
    rollout = plan_rollout(parts.crew)
    names = parts.names
    moving = bool(rollout.waves or rollout.leave)
    during = gateway_step(site, routes.during, names, gateway, "Let the gateway admit old and new replicas")
    admitting = moving and routes.running and any(needed(site, one, names) for one in routes.during)
    after = gateway_step(site, routes.after, names, gateway, "Tell the gateway")
    told = any(needed(site, one, names) for one in routes.after) or any(r.rekeyed for r in parts.fleet.projects)
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
    steps: tuple[Step | None, ...] = (
        registry_step(site, parts.registry, gateway),
        pass_on_step(site, parts.passing),
        local_step(site, parts.wanted, parts.local),
        stage_step(site, parts.work, gateway),
        fan_out_step(parts.work),
        pending_step(parts.current.gateways, entry, parts.release, on_ray=bool(parts.serve and parts.serve.needed)),
        rollout.start,
        walls_step(parts.serve.walls, gateway) if parts.serve else None,
        serve_step(site, parts.serve, parts.item.deployment, known=entry is not None) if parts.serve else None,
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
        leaving_step(site, parts.former_registries),
    )
    found = tuple(step for step in steps if step is not None)
    return parts.schedule.around(found)


def _send_bytes(parts: Parts) -> dict[str, int]:
    found = {host: part.bytes for host, part in parts.work.items() if part.bytes}
    if parts.registry and parts.registry.bytes:
        found[parts.gateway.name] = found.get(parts.gateway.name, 0) + parts.registry.bytes
    for own in parts.local:
        if own.bytes:
            found[own.host.name] = found.get(own.host.name, 0) + own.bytes
    return found


def _staging(
    site: Site,
    item: WantedDeployment,
    fleet: Fleet,
    gateways: tuple[PlannedGateway, ...],
    ui: PlannedUi | None,
    gateway: HostState,
    holders: Sequence[HostState] = (),
) -> dict[str, HostWork]:
    work: dict[str, HostWork] = {}
    hosts = {host.name: host for host in (*(replica.host for replica in fleet.projects), *holders)}
    if item.weights is not None:
        here = list(hosts.values())
        for name, need in along_a_chain(site, here, weights_needs(site, here, item.weights, item.source)).items():
            work.setdefault(name, HostWork(hosts[name])).weights = need
    wanted = [(replica.host, replica.image) for replica in fleet.projects]
    wanted += [(one.host, one.image) for one in gateways]
    if ui and ui.image:
        wanted.append((gateway, ui.image))
    for host, image in wanted:
        if image.order is not None:
            part = work.setdefault(host.name, HostWork(host))
            if all(other.order != image.order for other in part.images):
                part.images.append(image)
    return work
