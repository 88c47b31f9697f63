"""What a plan of a deployment carries beside its steps: files, changes for a person, endpoints, where secrets are."""

from onprem_llm.planning.certificates import renewals, tls_references
from onprem_llm.planning.deploy_parts import Parts
from onprem_llm.planning.fleet import Fleet
from onprem_llm.planning.gateway import PlannedGateway, gateway_url, needed
from onprem_llm.planning.ray_at_address import token_references
from onprem_llm.planning.ray_book import PROJECT as RAY_SERVE
from onprem_llm.planning.registry import leaving_changes
from onprem_llm.planning.standing import Standing
from onprem_llm.planning.types import UI_PROJECT, Change, Endpoint
from onprem_llm.rendering.haproxy_maps import CLI_KEY
from onprem_llm.rendering.ranks import replica_of


def files_of(parts: Parts) -> dict[str, dict[str, dict[str, str]]]:
    """Return host -> project -> path -> text of all that is rendered."""
    files: dict[str, dict[str, dict[str, str]]] = {}
    for replica in parts.fleet.projects:
        rendered = replica.outcome.rendered
        files.setdefault(replica.host.name, {})[rendered.project] = dict(rendered.files)
    for one in parts.routes.all:
        files.setdefault(one.host.name, {})[one.variant] = dict(one.outcome.rendered.files)
    if parts.serve:
        files.setdefault(parts.serve.cluster.asked.name, {}).update(parts.serve.files)
    schedule = parts.schedule
    for host, texts in schedule.files.items():
        files.setdefault(host, {})[schedule.variant] = dict(texts)
    for shared in parts.address:
        if shared.outcome:
            rendered = shared.outcome.rendered
            files.setdefault(shared.host.name, {})[rendered.project] = dict(rendered.files)
    if parts.ui and parts.ui.outcome:
        files.setdefault(parts.gateway.name, {})[UI_PROJECT] = dict(parts.ui.outcome.rendered.files)
    if parts.registry:
        rendered = parts.registry.outcome.rendered
        files.setdefault(parts.gateway.name, {})[rendered.project] = dict(rendered.files)
    for own in parts.local:
        rendered = own.outcome.rendered
        files.setdefault(own.host.name, {})[rendered.project] = dict(rendered.files)
    return files


def changes_of(parts: Parts) -> tuple[Change, ...]:
    """Return what happens to which thing on which host, and why."""
    changes: list[Change] = []
    if parts.registry:
        changes.append(parts.registry.outcome.change)
    changes += [one.outcome.change for one in parts.local]
    changes += leaving_changes(parts.former_registries)
    for name, part in parts.work.items():
        for image in part.images:
            ref = str((image.order or {})["ref"])
            reasons = (image.reason or "", *(parts.passing.why(name, ref) if parts.passing else ()))
            changes.append(Change(name, f"image {ref}", "update" if not image.bytes else "create", reasons))
        if part.weights and part.weights.change:
            changes.append(part.weights.change)
    changes += [replica.outcome.change for replica in parts.fleet.projects]
    changes += parts.serve.changes if parts.serve else ()
    staying = {replica.project for replica in parts.fleet.projects}
    for standing in parts.fleet.leaving:
        why = "another one has its name" if standing.project in staying else _why_leaving(standing, parts.fleet)
        changes.append(Change(standing.host.name, standing.project, "remove", (why,)))
    changes += renewals(parts.site, parts.current, parts.crew.guards)
    changes += [_gateway_change(parts, one) for one in parts.routes.after]
    changes += [one.change for one in parts.address]
    changes += parts.schedule.changes()
    if parts.ui and parts.ui.change:
        changes.append(parts.ui.change)
    return tuple(changes)


def _why_leaving(standing: Standing, fleet: Fleet) -> str:
    reasons = fleet.giving_way.get(replica_of(standing.project))
    if reasons is None:
        return "it is not wanted any more"
    return ": ".join(text for text in ("a new one takes its place", "; ".join(reasons)) if text)


def _gateway_change(parts: Parts, planned: PlannedGateway) -> Change:
    change = planned.outcome.change
    if change.action == "keep" and needed(parts.site, planned, parts.names):
        return Change(change.host, change.subject, "update", planned.moved or ("its keys or certificate",))
    return change


def endpoints_of(parts: Parts) -> tuple[Endpoint, ...]:
    """Return where the deployment and the page will answer."""
    site, gateway, deployment = parts.site, parts.gateway, parts.item.deployment
    url = f"{gateway_url(site, gateway)}/v1"
    key = site.key_path(f"client-{CLI_KEY}")
    found = [Endpoint("api", deployment.name, gateway.name, url, deployment.served_name, key)]
    if parts.ui and parts.ui.serves:
        page = parts.ui.url(gateway)
        password = site.key_path("open-webui-admin")
        found.append(Endpoint("ui", UI_PROJECT, gateway.name, page, site.open_webui.admin_email, password))
    return tuple(found)


def references_of(parts: Parts) -> dict[str, dict[str, dict[str, str]]]:
    """Return project -> variable -> where its secret value is read."""
    own = {name: dict(reference) for name, reference in parts.item.env_references.items()}
    references = {replica.project: own for replica in parts.fleet.projects if own}
    if parts.ui and parts.ui.outcome and parts.wanted.ui_env_references:
        references[UI_PROJECT] = {name: dict(ref) for name, ref in parts.wanted.ui_env_references.items()}
    if parts.serve and parts.serve.needed:
        references |= token_references(parts.site, RAY_SERVE)
    return references | tls_references(parts.site)
