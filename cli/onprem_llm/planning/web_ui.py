"""Open WebUI on the gateway host: one page for all chat deployments, behind the gateway like every other client."""

from dataclasses import dataclass

from onprem_llm.hosts import HostState
from onprem_llm.planning.addresses import Claim, bind_address, reached_at
from onprem_llm.planning.difference import Outcome, SecretEntry, compare
from onprem_llm.planning.gateway import gateway_url, own_url
from onprem_llm.planning.staging import HostImage, image_for
from onprem_llm.planning.types import UI_PROJECT, Change, ImageSource, Wanted
from onprem_llm.rendering.haproxy_maps import PAGE_KEY
from onprem_llm.rendering.open_webui import WebUi, draft
from onprem_llm.spec.fields import literal_env
from onprem_llm.spec.site import Site

SESSION_KEY = "open-webui-session"
ADMIN_KEY = "open-webui-admin"
# The page's own key at the gateway; the gateway's step makes it.
CLIENT_KEY = f"client-{PAGE_KEY}"


@dataclass(frozen=True, slots=True)
class PlannedUi:
    """The page on the gateway host; `outcome` is None where it is left as it is."""

    claim: Claim
    outcome: Outcome | None = None
    image: HostImage | None = None
    secrets: tuple[SecretEntry, ...] = ()
    removed: Change | None = None

    @property
    def serves(self) -> bool:
        """Tell whether there will be a page."""
        return self.removed is None

    def url(self, gateway: HostState) -> str:
        """Return the page's address."""
        return reached_at(self.claim, gateway)

    @property
    def change(self) -> Change | None:
        """What happens to the page; None where it is left as it is without a look."""
        return self.removed or (self.outcome.change if self.outcome else None)


def plan_ui(site: Site, wanted: Wanted, gateway: HostState) -> PlannedUi | None:
    """Render the page, or take it away where nothing is left to chat with; None where there is and was none.

    It talks to the gateway, whose list of models it shows: a deployment that comes or goes changes nothing here.
    """
    settings = site.open_webui
    claim = Claim(UI_PROJECT, bind_address(settings.listen, gateway, "onprem_llm_site.open_webui"), settings.port)
    chat = any(item.deployment.task == "chat" for item in wanted.deployments)
    if not settings.enabled or not chat:
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
        gateway=f"{_asked(site, gateway)}/v1",
        ca_file=f"{site.project_path('gateway')}/secrets/ca.crt" if site.gateway.tls.mode == "ca" else None,
        env=literal_env(settings.env),
    )
    entries = (
        SecretEntry("OPENAI_API_KEYS", (CLIENT_KEY,)),
        SecretEntry("WEBUI_SECRET_KEY", (SESSION_KEY,)),
        SecretEntry("WEBUI_ADMIN_PASSWORD", (ADMIN_KEY,)),
    )
    secrets: dict[str, str | None] = {
        "OPENAI_API_KEYS": gateway.client_keys.get(PAGE_KEY),
        "WEBUI_SECRET_KEY": gateway.keys.get(SESSION_KEY),
        "WEBUI_ADMIN_PASSWORD": gateway.keys.get(ADMIN_KEY),
    }
    secrets |= {name: wanted.ui_env_fingerprints.get(name) for name in settings.secret_env}
    outcome = compare(gateway, draft(page), revision=None, image_id=image.id, secrets=secrets)
    return PlannedUi(claim, outcome, image, entries)


def _asked(site: Site, gateway: HostState) -> str:
    """Return where the page asks.

    A given certificate may be signed by anybody, so the page cannot check it: it asks the gateway on its own host, with
    nobody in between who could take its key. The shared address, or a name, may be on another host.
    """
    return own_url(site, gateway) if site.gateway.tls.mode == "files" else gateway_url(site, gateway)
