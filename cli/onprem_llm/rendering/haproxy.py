"""The gateway as a Compose project: HAProxy, one address for all deployments.

What is reloaded (conf/) stands beside what the container is made of: a changed deployment never restarts the gateway.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass

from onprem_llm.rendering.compose import LABEL, Draft
from onprem_llm.rendering.haproxy_backends import Backend, Server, backend
from onprem_llm.rendering.haproxy_errors import error_files
from onprem_llm.rendering.haproxy_frontend import frontend
from onprem_llm.rendering.haproxy_maps import chat_models_json, models_json, models_map, names_map, paths_map
from onprem_llm.rendering.haproxy_process import ESCAPES_LUA, METRICS_PORT, process
from onprem_llm.rendering.haproxy_ray import ray_backend

__all__ = ["Backend", "Gateway", "Server", "draft"]

PROJECT = "gateway"
SERVICE = "haproxy"
KEYS = "/var/lib/onprem-llm/keys"
PEERS_PORT = 8406


@dataclass(frozen=True, slots=True)
class Gateway:
    """A gateway with all that is behind it; `max_body` in bytes, `timeout` in seconds without an answer."""

    image: str
    data_root: str
    address: str
    port: int
    tls: bool
    max_body: int
    timeout: int
    backends: tuple[Backend, ...]
    shared: str | None = None  # the address that wanders between gateway hosts
    own: str = ""  # this host's, as the other gateway hosts reach it
    peers: tuple[str, ...] = ()  # theirs


def draft(gateway: Gateway) -> Draft:
    """Build the project; backends come out in the order of their names, whatever the order given."""
    labels = {f"{LABEL}.project": PROJECT, f"{LABEL}.listen": f"{gateway.address}:{gateway.port}"}
    return Draft(PROJECT, SERVICE, _body(gateway), labels, _files(gateway))


def _body(gateway: Gateway) -> dict[str, object]:
    return {
        "image": gateway.image,
        "pull_policy": "never",
        "restart": "unless-stopped",
        "network_mode": "host",
        # On the stop signal the listeners close at once and streams may end.
        "stop_grace_period": "60s",
        "command": [
            *("batched", "haproxy", "-W", "-S", "/run/gateway/master.sock,mode,600"),
            *("-f", "/run/secrets-gateway/engine-keys.cfg"),
            *("-f", "/etc/gateway/haproxy.cfg", "-f", "/etc/gateway/deployments"),
        ],
        "volumes": [
            "./conf:/etc/gateway:ro",
            "./secrets:/run/secrets-gateway:ro",
            f"{KEYS}:/var/lib/keys:ro",
            "./run:/run/gateway",
            "./state:/var/lib/state",
        ],
        "healthcheck": {
            "test": ["CMD", "healthy", str(METRICS_PORT)],
            "interval": "10s",
            "timeout": "5s",
            "retries": 3,
            "start_period": "30s",
        },
    }


def _files(gateway: Gateway) -> Mapping[str, str]:
    backends = sorted(gateway.backends, key=lambda one: one.deployment)
    names = [one.deployment for one in backends]
    address, port, tls = gateway.address, gateway.port, gateway.tls
    return {
        "conf/haproxy.cfg": process(gateway.max_body, gateway.timeout)
        + frontend(address, port, names, tls=tls, max_body=gateway.max_body, shared=gateway.shared),
        "conf/escapes.lua": ESCAPES_LUA,
        "conf/models.json": models_json(backends),
        "conf/chat-models.json": chat_models_json(backends),
        "conf/models.map": models_map(backends),
        "conf/names.map": names_map(backends),
        "conf/paths.map": paths_map(backends),
        **({"conf/peers.json": _peers(gateway)} if gateway.peers else {}),
        **{f"conf/errors/{name}": text for name, text in error_files().items()},
        # HAProxy takes no folder without a file in it.
        "conf/deployments/_none.cfg": "# Each deployment has a file of its own here.\n",
        **{f"conf/deployments/{one.deployment}.cfg": _backend(one, gateway.timeout) for one in backends},
    }


def _backend(one: Backend, timeout: int) -> str:
    return backend(one, timeout) if one.prefix is None else ray_backend(one, one.prefix, timeout)


def _peers(gateway: Gateway) -> str:
    """Return with whom the keys are compared (roles/gateway/files/onprem-llm-keys)."""
    return json.dumps({"listen": gateway.own, "others": list(gateway.peers), "port": PEERS_PORT}, indent=1) + "\n"
