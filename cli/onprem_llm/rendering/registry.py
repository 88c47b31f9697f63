"""The site's own registry as a Compose project: docker-registry over a folder of images, for pulls alone.

One on the gateway host for all, over TLS; and where hosts pass images on, one on each of them for itself, on loopback.
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from onprem_llm.rendering.compose import LABEL, Draft, published

PROJECT = "registry"
SERVICE = "registry"
CONFIG = "config.yml"
CONTENTS = "contents"
STORE, CERTIFICATE = "data", "tls/registry.pem"
SERVES = "serves"
INNER_PORT, HEALTH_PORT = 5000, 5001
START_SECONDS = 60

# On 127.0.0.0/8 docker asks without TLS where there is none.
_TLS = "  tls: {certificate: /run/registry.pem, key: /run/registry.pem, minimumtls: tls1.2}\n"
# Nothing is ever written: images come as files (docs/adr/0013). One file has certificate and key.
CONFIGURATION = f"""\
# Rendered by onprem-llm: what you change here is gone with the next deploy.
version: 0.1
log: {{level: warn, accesslog: {{disabled: true}}}}
storage:
  filesystem: {{rootdirectory: /registry}}
  maintenance:
    readonly: {{enabled: true}}
    uploadpurging: {{enabled: false}}
http:
  addr: :{INNER_PORT}
{_TLS}\
  debug: {{addr: "127.0.0.1:{HEALTH_PORT}"}}
health:
  storagedriver: {{enabled: true, interval: 10s, threshold: 3}}
"""
LOCAL_CONFIGURATION = CONFIGURATION.replace(_TLS, "")
LOCAL_CONFIGURATION_SUM = hashlib.sha256(LOCAL_CONFIGURATION.encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class OwnRegistry:
    """The registry with its place; `images` is ref -> digest, all that it serves."""

    image: str
    address: str
    port: int
    images: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class LocalRegistry:
    """A host's own registry, on its loopback; `digests` is all that it serves."""

    image: str
    address: str
    port: int
    digests: Iterable[str]


def draft(registry: OwnRegistry) -> Draft:
    """Build the project. Other images are other files in its store, and another list of them: no restart."""
    body = _body(registry.image, registry.address, registry.port)
    body["volumes"] = [*_VOLUMES, f"./{CERTIFICATE}:/run/registry.pem:ro"]
    lines = [f"{digest} {ref}\n" for ref, digest in sorted(registry.images.items())]
    return Draft(
        PROJECT,
        SERVICE,
        body,
        _labels(registry.address, registry.port, CONFIGURATION),
        {CONFIG: CONFIGURATION, CONTENTS: "".join(lines)},
    )


def local_draft(registry: LocalRegistry) -> Draft:
    """Build a host's own. What it serves is a label: a plan knows by it where an image that is gone comes back from."""
    body = _body(registry.image, registry.address, registry.port)
    labels = _labels(registry.address, registry.port, LOCAL_CONFIGURATION)
    labels[f"{LABEL}.{SERVES}"] = " ".join(sorted(registry.digests))
    return Draft(PROJECT, SERVICE, body, labels, {CONFIG: LOCAL_CONFIGURATION})


_VOLUMES = (f"./{STORE}:/registry:ro", f"./{CONFIG}:/etc/registry/{CONFIG}:ro")


def _body(image: str, address: str, port: int) -> dict[str, object]:
    return {
        "image": image,
        "pull_policy": "never",
        "restart": "unless-stopped",
        "read_only": True,
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges:true"],
        "command": ["docker-registry", "serve", f"/etc/registry/{CONFIG}"],
        "ports": [published(address, port, INNER_PORT)],
        "volumes": list(_VOLUMES),
        "healthcheck": {
            "test": ["CMD", "healthy", str(HEALTH_PORT)],
            "interval": "10s",
            "timeout": "5s",
            "retries": 3,
            "start_period": f"{START_SECONDS}s",
        },
    }


def _labels(address: str, port: int, configuration: str) -> dict[str, str]:
    return {
        f"{LABEL}.project": PROJECT,
        f"{LABEL}.listen": f"{address}:{port}",
        f"{LABEL}.config": hashlib.sha256(configuration.encode()).hexdigest(),
    }
