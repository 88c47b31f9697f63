"""The site's own registry as a Compose project: docker-registry over a folder of images, for pulls alone."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

from onprem_llm.rendering.compose import LABEL, Draft, published

PROJECT = "registry"
SERVICE = "registry"
CONFIG = "config.yml"
CONTENTS = "contents"
STORE, CERTIFICATE = "data", "tls/registry.pem"
INNER_PORT, HEALTH_PORT = 5000, 5001
START_SECONDS = 60

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
  tls: {{certificate: /run/registry.pem, key: /run/registry.pem, minimumtls: tls1.2}}
  debug: {{addr: "127.0.0.1:{HEALTH_PORT}"}}
health:
  storagedriver: {{enabled: true, interval: 10s, threshold: 3}}
"""


@dataclass(frozen=True, slots=True)
class OwnRegistry:
    """The registry with its place; `images` is ref -> digest, all that it serves."""

    image: str
    address: str
    port: int
    images: Mapping[str, str]


def draft(registry: OwnRegistry) -> Draft:
    """Build the project. Other images are other files in its store, and another list of them: no restart."""
    body: dict[str, object] = {
        "image": registry.image,
        "pull_policy": "never",
        "restart": "unless-stopped",
        "read_only": True,
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges:true"],
        "command": ["docker-registry", "serve", f"/etc/registry/{CONFIG}"],
        "ports": [published(registry.address, registry.port, INNER_PORT)],
        "volumes": [
            f"./{STORE}:/registry:ro",
            f"./{CONFIG}:/etc/registry/{CONFIG}:ro",
            f"./{CERTIFICATE}:/run/registry.pem:ro",
        ],
        "healthcheck": {
            "test": ["CMD", "healthy", str(HEALTH_PORT)],
            "interval": "10s",
            "timeout": "5s",
            "retries": 3,
            "start_period": f"{START_SECONDS}s",
        },
    }
    labels = {
        f"{LABEL}.project": PROJECT,
        f"{LABEL}.listen": f"{registry.address}:{registry.port}",
        f"{LABEL}.config": hashlib.sha256(CONFIGURATION.encode()).hexdigest(),
    }
    lines = [f"{digest} {ref}\n" for ref, digest in sorted(registry.images.items())]
    return Draft(PROJECT, SERVICE, body, labels, {CONFIG: CONFIGURATION, CONTENTS: "".join(lines)})
