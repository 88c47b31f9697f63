"""Open WebUI as a Compose project: one page for all chat deployments."""

import json
from collections.abc import Mapping
from dataclasses import dataclass

from onprem_llm.rendering.compose import LABEL, WITH_SECRETS, Draft, health_check, published, user_text

PROJECT = "open-webui"
SERVICE = "open-webui"
INNER_PORT = 8080
START_SECONDS = 300
CA_FILE = "/run/onprem-llm/ca.crt"

# The site's own `env` may add to these and change those that spec/site.py does not keep for us.
ENVIRONMENT = {
    "ANONYMIZED_TELEMETRY": "false",
    "DO_NOT_TRACK": "true",
    "SCARF_NO_ANALYTICS": "true",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    # Nothing is looked for on the internet: models for search, speech and ranking, or a newer version.
    "OFFLINE_MODE": "true",
    "HF_HUB_OFFLINE": "1",
    "ENABLE_VERSION_UPDATE_CHECK": "false",
    "RAG_EMBEDDING_MODEL_AUTO_UPDATE": "false",
    "RAG_RERANKING_MODEL_AUTO_UPDATE": "false",
    "WHISPER_MODEL_AUTO_UPDATE": "false",
    "RAG_EMBEDDING_ENGINE": "openai",
    "BYPASS_EMBEDDING_AND_RETRIEVAL": "true",
    "ENABLE_COMMUNITY_SHARING": "false",
    # Settings come from this file, not from what the database remembers of an older one.
    "ENABLE_PERSISTENT_CONFIG": "false",
    "ENABLE_SIGNUP": "false",
    "ENABLE_OLLAMA_API": "false",
    "ENABLE_OPENAI_API": "true",
    # A gateway that does not answer must not hold up the page (seconds).
    "AIOHTTP_CLIENT_TIMEOUT_MODEL_LIST": "3",
    # The gateway is told which chat it is: under `routing: session` all that people ask here would be one session.
    "OPENAI_API_CONFIGS": json.dumps({"0": {"headers": {"X-Session-Id": "{{CHAT_ID}}"}}}),
    # The page offers built-in tools with each message, which vLLM refuses unless a tool parser was chosen.
    "DEFAULT_MODEL_METADATA": json.dumps({"capabilities": {"builtin_tools": False}}),
}


@dataclass(frozen=True, slots=True)
class WebUi:
    """The page with its place: everything that its Compose file says."""

    image: str
    address: str
    port: int
    admin_email: str
    gateway: str  # https://10.0.0.1:8080/v1
    ca_file: str | None  # on the host: who signed the gateway's certificate; None: no TLS, or a certificate of others
    env: Mapping[str, str]


def draft(ui: WebUi) -> Draft:
    """Build the project; keys and passwords come with the secrets file."""
    environment = {
        **ENVIRONMENT,
        "OPENAI_API_BASE_URLS": ui.gateway,
        **_trust(ui),
        "WEBUI_ADMIN_EMAIL": ui.admin_email,
        **ui.env,
    }
    body: dict[str, object] = {
        "image": ui.image,
        "pull_policy": "never",
        "restart": "unless-stopped",
        "stop_grace_period": "15s",
        "entrypoint": [*WITH_SECRETS, "bash", "start.sh"],
        "environment": {name: user_text(value) for name, value in sorted(environment.items())},
        "secrets": ["env"],
        "ports": [published(ui.address, ui.port, INNER_PORT)],
        "volumes": ["./data:/app/backend/data", *([f"{ui.ca_file}:{CA_FILE}:ro"] if ui.ca_file else [])],
        "healthcheck": health_check(f"http://127.0.0.1:{INNER_PORT}/health", start_period=START_SECONDS),
    }
    labels = {f"{LABEL}.project": PROJECT, f"{LABEL}.listen": f"{ui.address}:{ui.port}"}
    return Draft(PROJECT, SERVICE, body, labels)


def _trust(ui: WebUi) -> dict[str, str]:
    if ui.ca_file:
        # It asks nobody but the gateway, so this is the one authority that it needs.
        return {"SSL_CERT_FILE": CA_FILE, "REQUESTS_CA_BUNDLE": CA_FILE}
    if ui.gateway.startswith("https:"):
        # A given certificate may be signed by anybody; `gateway` is the page's own host then (planning/web_ui.py).
        return {"AIOHTTP_CLIENT_SESSION_SSL": "false"}
    return {}
