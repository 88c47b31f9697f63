"""deploy: one deployment added or changed, the others as they are."""

from collections.abc import Mapping

from onprem_llm.hosts import Current, HostState
from onprem_llm.planning.addresses import Claim, check_ports, reached_at
from onprem_llm.planning.replicas import PlannedReplica, plan_replicas
from onprem_llm.planning.revisions import canonical_text, differences
from onprem_llm.planning.staging import HostWork, check_space, weights_needs
from onprem_llm.planning.steps import Release, apply_step, record_step, remove_step, stage_step, ui_step
from onprem_llm.planning.types import UI_PROJECT, Change, Endpoint, Plan, Wanted, WantedDeployment
from onprem_llm.planning.warnings import deployment_warnings
from onprem_llm.planning.web_ui import PlannedUi, find_engines, plan_ui
from onprem_llm.spec.site import Site
from onprem_llm.spec.weights_identity import WeightsManifest


def plan_deploy(site: Site, wanted: Wanted, current: Current, gateway: HostState) -> Plan:
    """Plan one deployment; InvalidError when the hosts cannot carry it."""
    item = wanted.named(wanted.focus or "")
    if item is None or item.weights is None or item.source is None:
        raise ValueError("plan: the deployment in focus needs its weights' manifest and folder")
    name = item.deployment.name
    release = _release(site, item, item.weights, current)
    replicas = release.replicas
    engines = find_engines(wanted, current, {name: (replicas[0].claim, replicas[0].host)})
    ui = plan_ui(site, wanted, current, gateway, engines)
    _check_ports(replicas, ui, gateway)
    work = _staging(site, item, replicas, ui, gateway)
    for part in work.values():
        check_space(part.host, weights=part.weights.bytes if part.weights else 0, images=part.image_bytes)
    record = record_step(name, gateway, current.book.get(name), release)
    steps = (
        stage_step(site, work),
        apply_step(site, item, replicas, gateway, proven=record is None),
        ui_step(site, ui, gateway),
        remove_step(site, replicas, ui, gateway),
        record,
    )
    return Plan(
        based_on=current.digest(),
        gateway=gateway.name,
        deployment=name,
        verb="deploy",
        revision=release.revision,
        model_yaml=release.text,
        steps=tuple(step for step in steps if step is not None),
        files=_files(replicas, ui, gateway),
        changes=_changes(work, replicas, ui),
        send_bytes={host: part.bytes for host, part in work.items() if part.bytes},
        endpoints=_endpoints(site, item, replicas, ui, gateway),
        warnings=(
            *item.notes,
            *deployment_warnings(site, item.deployment, replicas),
            *engines.warnings,
            *(ui.warnings if ui else ()),
        ),
        secrets=_references(wanted, item, replicas, ui),
    )


def _release(site: Site, item: WantedDeployment, weights: WeightsManifest, current: Current) -> Release:
    """Say which revision this is: the book's latest where text and image are the same, else the next."""
    name = item.deployment.name
    entry = current.book.get(name)
    text = canonical_text(item.deployment, weights.id)
    why = differences(entry.model_yaml, text) if entry else ()
    revision = current.last_revision(name) + 1
    # Placed and resolved first: whether this is a new revision also depends on the image that was found.
    replicas = plan_replicas(site, item, weights, current, revision=revision, why=why)
    images = {item.deployment.engine.image: replicas[0].image.reference}
    if entry and entry.model_yaml == text and dict(entry.images) == images:
        revision = entry.revision
        replicas = plan_replicas(site, item, weights, current, revision=revision, why=why)
    return Release(revision, text, images, replicas)


def _check_ports(replicas: tuple[PlannedReplica, ...], ui: PlannedUi | None, gateway: HostState) -> None:
    claims: dict[str, list[Claim]] = {}
    hosts = {gateway.name: gateway}
    for replica in replicas:
        hosts[replica.host.name] = replica.host
        claims.setdefault(replica.host.name, []).append(replica.claim)
    if ui and ui.outcome:
        claims.setdefault(gateway.name, []).append(ui.claim)
    leaving = {replica.placement.project: set(replica.placement.elsewhere) for replica in replicas}
    gone_ui = {UI_PROJECT} if ui and ui.removed else set()
    for name, wanted in claims.items():
        going = {project for project, hosts_left in leaving.items() if name in hosts_left}
        check_ports(hosts[name], wanted, going | (gone_ui if name == gateway.name else set()))


def _staging(
    site: Site,
    item: WantedDeployment,
    replicas: tuple[PlannedReplica, ...],
    ui: PlannedUi | None,
    gateway: HostState,
) -> dict[str, HostWork]:
    work: dict[str, HostWork] = {}
    hosts = list({replica.host.name: replica.host for replica in replicas}.values())
    if item.weights is not None and item.source is not None:
        for name, need in weights_needs(site, hosts, item.weights, item.source).items():
            host = next(host for host in hosts if host.name == name)
            work.setdefault(name, HostWork(host)).weights = need
    wanted = [(replica.host, replica.image) for replica in replicas]
    if ui and ui.image:
        wanted.append((gateway, ui.image))
    for host, image in wanted:
        if image.order is not None:
            part = work.setdefault(host.name, HostWork(host))
            if all(other.order != image.order for other in part.images):
                part.images.append(image)
    return work


def _files(
    replicas: tuple[PlannedReplica, ...], ui: PlannedUi | None, gateway: HostState
) -> dict[str, dict[str, dict[str, str]]]:
    files: dict[str, dict[str, dict[str, str]]] = {}
    for replica in replicas:
        rendered = replica.outcome.rendered
        files.setdefault(replica.host.name, {})[rendered.project] = dict(rendered.files)
    if ui and ui.outcome:
        files.setdefault(gateway.name, {})[UI_PROJECT] = dict(ui.outcome.rendered.files)
    return files


def _changes(
    work: Mapping[str, HostWork], replicas: tuple[PlannedReplica, ...], ui: PlannedUi | None
) -> tuple[Change, ...]:
    changes: list[Change] = []
    for name, part in work.items():
        for image in part.images:
            subject = f"image {(image.order or {})['ref']}"
            changes.append(Change(name, subject, "update" if not image.bytes else "create", (image.reason or "",)))
        if part.weights and part.weights.change:
            changes.append(part.weights.change)
    for replica in replicas:
        changes.append(replica.outcome.change)
        moved = replica.placement.elsewhere
        changes += [Change(host, replica.placement.project, "remove", ("it moves",)) for host in moved]
    if ui and ui.change:
        changes.append(ui.change)
    return tuple(changes)


def _endpoints(
    site: Site,
    item: WantedDeployment,
    replicas: tuple[PlannedReplica, ...],
    ui: PlannedUi | None,
    gateway: HostState,
) -> tuple[Endpoint, ...]:
    deployment = item.deployment
    key_file = site.key_path(deployment.name)
    found = [
        Endpoint(
            "api",
            r.placement.project,
            r.host.name,
            f"{reached_at(r.claim, r.host)}/v1",
            deployment.served_name,
            key_file,
        )
        for r in replicas
    ]
    if ui and ui.serves:
        url = reached_at(ui.claim, gateway)
        found.append(
            Endpoint(
                "ui", UI_PROJECT, gateway.name, url, site.open_webui.admin_email, site.key_path("open-webui-admin")
            )
        )
    return tuple(found)


def _references(
    wanted: Wanted, item: WantedDeployment, replicas: tuple[PlannedReplica, ...], ui: PlannedUi | None
) -> dict[str, dict[str, dict[str, str]]]:
    own = {name: dict(reference) for name, reference in item.env_references.items()}
    references = {replica.placement.project: own for replica in replicas if own}
    if ui and ui.outcome and wanted.ui_env_references:
        references[UI_PROJECT] = {name: dict(ref) for name, ref in wanted.ui_env_references.items()}
    return references
