#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""One look at a Ray cluster that somebody else runs, from a gateway host: its Ray, nodes, proxies and applications."""

from __future__ import annotations

from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.onprem_llm_ray_api import APPLICATIONS, RayApi, RayError
from ansible.module_utils.onprem_llm_ray_said import serve_said
from ansible.module_utils.onprem_llm_ray_shared import Ledger
from ansible.module_utils.onprem_llm_ray_wait import silent

DOCUMENTATION = r"""
module: ray_look
short_description: Tell what a Ray cluster at an address is and serves
description:
  - Reads only, and does not fail for what Ray says or does not say. It is in the answer.
options:
  address:
    description: Address of the cluster's dashboard, http(s)://HOST:PORT.
    type: str
    required: true
  token:
    description: The cluster's token; empty for none.
    type: str
    default: ""
  token_file:
    description: File of the token on this host, compared with it.
    type: path
    required: true
  ledger:
    description: File on this host with what Ray Serve was told from here.
    type: path
    required: true
author: the onprem-llm authors
"""

EXAMPLES = r"""
- name: Look at the cluster
  ray_look:
    address: http://10.0.0.9:8265
    token_file: /srv/onprem-llm/secrets/ray_token
    ledger: /srv/onprem-llm/ray-serve/told.json
"""

RETURN = r"""
onprem_llm:
  description: The answer, under the key C(serve); the probe has the same of a cluster of our own.
  type: dict
  returned: always
"""

NODES = "/api/v0/nodes?detail=1&limit=10000"
TLS = ". If it speaks no TLS, write http://; if this host does not know who signed its certificate: extra_ca"
TIME_LIMIT = 10.0  # seconds for one answer: a dashboard's first one about Serve takes some


def looked(params):
    """Return the answer; `error` where Ray does not say how it is."""
    ledger = Ledger(Path(params["ledger"]), params["address"])
    token_here = _is_here(Path(params["token_file"]), params["token"])
    found = {
        "error": None,
        "address": params["address"],
        "version": None,
        "port": None,
        "host": None,
        "tls": False,
        "proxy_location": None,
        "proxies": {},
        "applications": {},
        "nodes": {},
        "told": ledger.read(),
        "told_elsewhere": {name: at for at, apps in ledger.whole().items() if at != ledger.address for name in apps},
        "token_here": token_here,
        # Only where it is this cluster's: logs send what is in it.
        "token_file": params["token_file"] if params["token"] and token_here else None,
    }
    api = RayApi(params["address"], params["token"], TIME_LIMIT)
    try:
        found.update(_said(api))
    except RayError as error:
        found["error"] = str(error)
    except (KeyError, TypeError, AttributeError) as error:
        found["error"] = f"{params['address']} answers otherwise than Ray 2.60: {type(error).__name__}: {error}"
    except Exception as error:  # http.client's among them, which is imported where it is asked
        found["error"] = silent(api, error) + (TLS if params["address"].startswith("https:") else "")
    return found


def _is_here(path, token):
    try:
        return not token or path.read_text(encoding="utf-8").strip() == token
    except (OSError, UnicodeDecodeError):
        return False


def _said(api):
    version = api.ask("GET", "/api/version")["ray_version"]
    answer = api.ask("GET", APPLICATIONS)
    options = answer.get("http_options") or {}
    return {
        "version": version,
        "host": options.get("host"),
        "tls": bool(options.get("ssl_certfile")),
        "proxy_location": answer.get("proxy_location"),
        **serve_said(answer),
        "nodes": _nodes(api.ask("GET", NODES)["data"]["result"]["result"]),
    }


def _nodes(listed):
    """Return what is alive by its address; two nodes at one address are one, with what both have."""
    found = {}
    for one in listed:
        if one["state"] != "ALIVE":
            continue
        node = found.setdefault(one["node_ip"], {"head": False, "resources": {}})
        node["head"] = node["head"] or bool(one.get("is_head_node"))
        for name, value in (one.get("resources_total") or {}).items():
            if name in ("CPU", "GPU", "memory"):
                node["resources"][name] = node["resources"].get(name, 0) + value
    return found


def main():
    """Run as an Ansible module."""
    module = AnsibleModule(
        argument_spec={
            "address": {"type": "str", "required": True},
            "token": {"type": "str", "default": "", "no_log": True},
            "token_file": {"type": "path", "required": True, "no_log": False},
            "ledger": {"type": "path", "required": True},
        },
        supports_check_mode=True,
    )
    module.exit_json(changed=False, invocation={}, onprem_llm={"serve": looked(module.params)})


if __name__ == "__main__":
    main()
