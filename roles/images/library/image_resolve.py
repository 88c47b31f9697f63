#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""Ask registries, through the engine, which digest a tag means now."""

from __future__ import annotations

import base64
import concurrent.futures
import contextlib
import http.client
import json
import socket
from pathlib import Path
from urllib.parse import quote

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
module: image_resolve
short_description: Ask registries which digest a tag means
description:
  - Through the docker engine of the host, so that its proxy, its CAs and root's credentials apply. Nothing is pulled.
options:
  refs:
    description: Image references with a tag.
    type: list
    elements: str
    required: true
  config:
    description: Docker configuration with the credentials.
    type: path
    default: /root/.docker/config.json
author: the onprem-llm authors
"""

EXAMPLES = r"""
- name: Ask for the digest
  image_resolve:
    refs: ["registry.local:5000/vllm/vllm-openai:v0.11.0"]
"""

RETURN = r"""
onprem_llm:
  description: C(resolved) has a digest or null by reference, C(resolve_errors) says why it is null.
  type: dict
  returned: always
"""

SOCKET = "/var/run/docker.sock"
TIME_LIMIT = 30.0  # seconds a registry
HUB = "https://index.docker.io/v1/"


class EngineConnection(http.client.HTTPConnection):
    """HTTP over the engine's socket."""

    def connect(self):
        """Open the socket; the host name is a formality."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(TIME_LIMIT)
        self.sock.connect(SOCKET)


def registry_of(reference):
    """Return the registry of a reference as docker's configuration spells it."""
    first, separator, _ = reference.partition("/")
    own = separator and ("." in first or ":" in first or first == "localhost")
    return first if own and first not in ("docker.io", "index.docker.io") else HUB


def credentials(config, reference):
    """Return the X-Registry-Auth header for a reference; empty credentials where there are none."""
    login = {}
    with contextlib.suppress(OSError, ValueError, KeyError):
        registry = registry_of(reference)
        known = json.loads(Path(config).read_text(encoding="utf-8"))["auths"][registry]
        user, _, password = base64.b64decode(known["auth"]).decode().partition(":")
        login = {"username": user, "password": password, "serveraddress": registry}
    return base64.urlsafe_b64encode(json.dumps(login).encode()).decode()


def resolve(reference, config):
    """Return (digest, None) or (None, why not)."""
    connection = EngineConnection("docker", timeout=TIME_LIMIT)
    try:
        with contextlib.closing(connection):
            path = f"/distribution/{quote(reference, safe='/:@')}/json"
            connection.request("GET", path, headers={"X-Registry-Auth": credentials(config, reference)})
            answer = connection.getresponse()
            body = json.loads(answer.read().decode("utf-8", "replace"))
            body = body if isinstance(body, dict) else {}
    except (OSError, ValueError, http.client.HTTPException) as error:
        return None, f"the docker engine gave no answer: {error}"
    if answer.status != 200:
        return None, str(body.get("message", body))[:300]
    digest = (body.get("Descriptor") or {}).get("digest")
    return digest, None if digest else f"the docker engine's answer names no digest: {str(body)[:200]}"


def main():
    """Run as an Ansible module."""
    module = AnsibleModule(
        argument_spec={
            "refs": {"type": "list", "elements": "str", "required": True},
            "config": {"type": "path", "default": "/root/.docker/config.json"},
        },
        supports_check_mode=True,
    )
    refs = module.params["refs"]
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        answers = dict(zip(refs, pool.map(lambda one: resolve(one, module.params["config"]), refs)))
    module.exit_json(
        changed=False,
        onprem_llm={
            "resolved": {name: digest for name, (digest, _) in answers.items()},
            "resolve_errors": {name: why for name, (_, why) in answers.items() if why},
        },
    )


if __name__ == "__main__":
    main()
