"""Open WebUI on the gateway host: rendered from all chat deployments, never from one."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from onprem_llm.hosts import Current, HostState
from onprem_llm.planning.addresses import LOOPBACK, Claim, bind_address, reached_at, standing_claim
from onprem_llm.planning.difference import Outcome, SecretEntry, compare
from onprem_llm.planning.placement import homes
from onprem_llm.planning.staging import HostImage, image_for
from onprem_llm.planning.types import UI_PROJECT, Change, ImageSource, Wanted
from onprem_llm.rendering.open_webui import WebUi, draft
from onprem_llm.spec.deployment import Deployment
from onprem_llm.spec.fields import literal_env
from onprem_llm.spec.site import Site

SESSION_KEY = "open-webui-session"
ADMIN_KEY = "open-webui-admin"


@dataclass(frozen=True, slots=True)
class Engines:
    """The engines behind the page: deployment -> URL, and what a person should know about the others."""

    urls: Mapping[str, str]
    warnings: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PlannedUi:
    """The page on the gateway host; `outcome` is None where it is left as it is."""

    claim: Claim
    outcome: Outcome | None = None
    image: HostImage | None = None
    secrets: tuple[SecretEntry, ...] = ()
    removed: Change | None = None
    warnings: tuple[str, ...] = ()

    @property
    def serves(self) -> bool:
        """Tell whether there will be a page."""
        return self.removed is None

    @property
    def change(self) -> Change | None:
        """What happens to the page; None where it is left as it is without a look."""
        return self.removed or (self.outcome.change if self.outcome else None)


def find_engines(wanted: Wanted, current: Current, placed: Mapping[str, tuple[Claim, HostState]]) -> Engines:
    """Say where each chat deployment answers: the changed one as placed, the others as they run."""
    urls, warnings, unknown = {}, [], []
    for item in sorted(wanted.deployments, key=lambda item: item.deployment.name):
        deployment = item.deployment
        if deployment.task != "chat":
            continue
        found = placed.get(deployment.name) or _standing(deployment, current)
        if found is None:
            unknown += [deployment.name] if current.unreachable else []
            if not current.unreachable:
                warnings.append(f"{deployment.name} is in the book and runs nowhere: Open WebUI does not list it")
        elif found[0].address == LOOPBACK:
            warnings.append(f"{deployment.name} listens on {LOOPBACK} only: Open WebUI cannot reach it")
        else:
            urls[deployment.name] = f"{reached_at(*found)}/v1"
    return Engines(urls, tuple(warnings), tuple(unknown))


def plan_ui(site: Site, wanted: Wanted, current: Current, gateway: HostState, engines: Engines) -> PlannedUi | None:
    """Render the page, or take it away where nothing is left to chat with; None where there is and was none."""
    settings = site.open_webui
    claim = Claim(UI_PROJECT, bind_address(settings.listen, gateway, "onprem_llm_site.open_webui"), settings.port)
    if engines.unknown and settings.enabled and UI_PROJECT in gateway.projects:
        names = ", ".join(engines.unknown)
        warning = f"Open WebUI is left as it is: {names} may run on a host that did not answer"
        return PlannedUi(claim, warnings=(warning,))
    if not settings.enabled or not engines.urls:
        if UI_PROJECT not in gateway.projects:
            return None
        why = "onprem_llm_site.open_webui.enabled is false" if not settings.enabled else "no chat deployment is left"
        return PlannedUi(claim, removed=Change(gateway.name, UI_PROJECT, "remove", (why,)))
    image = image_for(gateway, wanted.ui_image or ImageSource(settings.image), None)
    page = WebUi(
        image=image.reference,
        address=claim.address,
        port=settings.port,
        admin_email=settings.admin_email,
        engines=tuple(engines.urls.values()),
        env=literal_env(settings.env),
    )
    entries = (
        SecretEntry("OPENAI_API_KEYS", tuple(engines.urls)),
        SecretEntry("WEBUI_SECRET_KEY", (SESSION_KEY,)),
        SecretEntry("WEBUI_ADMIN_PASSWORD", (ADMIN_KEY,)),
    )
    secrets = {entry.name: _joined(gateway.keys, entry.keys) for entry in entries}
    secrets |= {name: wanted.ui_env_fingerprints.get(name) for name in settings.secret_env}
    listed = (f"chat deployments: {', '.join(engines.urls)}",)
    outcome = compare(gateway, draft(page), revision=None, image_id=image.id, secrets=secrets, why=listed)
    lost = [name for name in engines.urls if name != wanted.focus and name not in gateway.keys]
    warnings = tuple(
        f"the key of {name} is gone from {gateway.name}, and a new one is made: deploy {name} again, so that its "
        "engine takes it"
        for name in lost
    )
    return PlannedUi(claim, outcome, image, entries, warnings=warnings)


def _joined(keys: Mapping[str, str], names: Sequence[str]) -> str | None:
    return ";".join(keys[name] for name in names) if all(name in keys for name in names) else None


def _standing(deployment: Deployment, current: Current) -> tuple[Claim, HostState] | None:
    project = f"{deployment.name}-0"
    for host in homes(project, current):
        claim = standing_claim(host, project)
        if claim is None:
            claim = Claim(project, bind_address(deployment.listen, host, deployment.name), deployment.port)
        return claim, host
    return None
