#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""The nodes of a Ray cluster, asked of its head: wait until some are alive, drain some, or show all."""

from __future__ import annotations

import http.client
import subprocess
import time
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.onprem_llm_docker import docker
from ansible.module_utils.onprem_llm_ray_api import APPLICATIONS, RayApi, RayError

DOCUMENTATION = r"""
module: ray_nodes
short_description: Wait for nodes of a Ray cluster, drain some, or show all
description:
  - Runs on the head's host, and asks Ray's dashboard there. Only the drain itself is a command in the head's container.
options:
  dashboard_port:
    description: Port of the dashboard on 127.0.0.1.
    type: int
    required: true
  token_file:
    description: File of the cluster's token on this host.
    type: path
    required: true
  container:
    description: Name of the head's container.
    type: str
    default: ray-head-ray-1
  address:
    description: Address of the cluster, host:port; for draining.
    type: str
    default: ""
  nodes:
    description: Addresses of nodes.
    type: list
    elements: str
    default: []
  applications:
    description: Names of Ray Serve's applications that must be RUNNING, too; for C(alive).
    type: list
    elements: str
    default: []
  timeout:
    description: Seconds until it must be so; for C(shown) until it must have been answered.
    type: int
    default: 180
  state:
    description:
      - C(alive) waits until all O(nodes) are in the cluster. C(drained) has Ray start nothing more on O(nodes), and
        waits until Ray Serve has neither a replica nor a proxy that takes requests there. C(shown) returns what there
        is.
    type: str
    choices: [alive, drained, shown]
    default: alive
author: the onprem-llm authors
"""

EXAMPLES = r"""
- name: Wait for a worker
  ray_nodes:
    dashboard_port: 20007
    token_file: /srv/onprem-llm/secrets/ray_token
    nodes: [10.0.0.12]
"""

RETURN = r"""
nodes:
  description: Every node that was ever there, with address, state, head and resources.
  type: list
  elements: dict
  returned: success
applications:
  description: Ray Serve's applications with status, message and replicas.
  type: dict
  returned: success
"""

PAUSE = 1.0  # seconds between two looks
ANSWER = 15  # seconds for one answer
NODES = "/api/v0/nodes?detail=1&limit=10000"
# The reason that Ray always accepts: others it refuses while something runs there. No deadline: before one, by the time
# that their streams are given, Ray Serve stops replicas that have no other place yet.
DRAIN = (
    'set -a; . /run/secrets/env; set +a; exec ray drain-node --address="$1" --node-id="$2" '
    "--reason=DRAIN_NODE_REASON_PREEMPTION --reason-message=onprem-llm"
)


class Head:
    """What the head's dashboard says."""

    def __init__(self, port, token):
        """Name its port on 127.0.0.1, and the cluster's token."""
        self.api = RayApi(port, token, ANSWER)

    def nodes(self):
        """Return [{id, address, state, head, resources}]."""
        return [
            {
                "id": one["node_id"],
                "address": one["node_ip"],
                "state": one["state"],
                "head": bool(one.get("is_head_node")),
                "resources": {
                    name: value
                    for name, value in (one.get("resources_total") or {}).items()
                    if name in ("CPU", "GPU", "memory")
                },
            }
            for one in self.api.ask("GET", NODES)["data"]["result"]["result"]
        ]

    def applications(self):
        """Return Ray Serve's applications: name -> {status, message, replicas: [{deployment, address, state}]}."""
        return {
            name: {
                "status": app.get("status"),
                "message": app.get("message") or "",
                "replicas": [
                    {"deployment": deployment, "address": replica.get("node_ip"), "state": replica.get("state")}
                    for deployment, details in (app.get("deployments") or {}).items()
                    for replica in details.get("replicas") or []
                ],
            }
            for name, app in self.api.ask("GET", APPLICATIONS).get("applications", {}).items()
        }

    def proxies(self):
        """Return the addresses of nodes on which Serve takes requests; one that drains does so for 30 seconds more."""
        proxies = self.api.ask("GET", APPLICATIONS).get("proxies") or {}
        return {proxy.get("node_ip") for proxy in proxies.values() if proxy.get("status") != "DRAINED"}


def until(end, look, said):
    """Look until that returns an answer that is not None; RayError where time runs out. `said` explains the last."""
    last = ""
    while True:
        try:
            found = look()
            if found is not None:
                return found
            last = said()
        except (OSError, http.client.HTTPException, ValueError, KeyError, TypeError) as error:
            last = f"Ray's dashboard on 127.0.0.1 does not answer: {type(error).__name__}: {error}"
        if time.monotonic() + PAUSE > end:
            raise RayError(last)
        time.sleep(PAUSE)


def wait_alive(head, wanted, end, applications=()):
    """Wait until all addresses are of nodes that are alive, and all applications run; return False: nothing changed."""
    missing, waiting = [], []

    def look():
        alive = {node["address"] for node in head.nodes() if node["state"] == "ALIVE"}
        missing[:] = [address for address in wanted if address not in alive]
        found = head.applications() if applications and not missing else {}
        waiting[:] = [] if missing else [(name, found.get(name, {})) for name in applications]
        waiting[:] = [(name, app) for name, app in waiting if app.get("status") != "RUNNING"]
        return None if missing or waiting else True

    def said():
        if missing:
            return (
                f"not in the cluster: {', '.join(missing)}; expected them alive. Look at the log there: docker logs "
                "ray-worker-ray-1; at times and ports between the hosts: onprem-llm check --network"
            )
        found = "; ".join(
            f"{name} is {app.get('status') or 'not there'}" + (f": {app['message']}" if app.get("message") else "")
            for name, app in waiting
        )
        return f"{found}; expected RUNNING, as before. onprem-llm cluster status shows what Ray Serve says of it"

    until(end, look, said)
    return False


def drain(head, params, end):
    """Drain the nodes that are alive, then wait until nothing serves on them; return whether any was drained."""
    alive = until(end, lambda: [node for node in head.nodes() if node["state"] == "ALIVE"], str)
    going = [node for node in alive if node["address"] in params["nodes"] and not node["head"]]
    for node in going:
        asked = ("exec", params["container"], "sh", "-c", DRAIN, "sh", params["address"], node["id"])
        code, said = docker(*asked, limit=120)
        if code != 0:
            raise RayError(f"{node['address']} could not be drained: {said[-300:]}")
    staying, proxies = [], []

    def look():
        there = {node["address"] for node in head.nodes() if node["state"] == "ALIVE"} & {n["address"] for n in going}
        staying[:] = [
            f"{name} ({replica['deployment']}) on {replica['address']}"
            for name, app in head.applications().items()
            for replica in app["replicas"]
            if replica["address"] in there
        ]
        # Whoever sends requests has to notice that a proxy goes, which says so meanwhile.
        proxies[:] = [] if staying else sorted(there & head.proxies())
        return None if staying or proxies else True

    def said():
        if proxies:
            return (
                f"Ray Serve's proxy on {', '.join(proxies)} still takes requests; expected it to end 30 seconds after "
                "the last replica there. Run it again; onprem-llm cluster status shows what is there"
            )
        return (
            f"replicas that found no place elsewhere: {', '.join(sorted(staying))}. They go on serving, and nothing "
            "new starts there: give the cluster another worker and drain again. To have the node back as it was: "
            "docker restart ray-worker-ray-1 on it, which starts its replicas anew"
        )

    until(end, look, said)
    return bool(going)


def main():
    """Run as an Ansible module."""
    module = AnsibleModule(
        argument_spec={
            "dashboard_port": {"type": "int", "required": True},
            "token_file": {"type": "path", "required": True, "no_log": False},
            "container": {"type": "str", "default": "ray-head-ray-1"},
            "address": {"type": "str", "default": ""},
            "nodes": {"type": "list", "elements": "str", "default": []},
            "applications": {"type": "list", "elements": "str", "default": []},
            "timeout": {"type": "int", "default": 180},
            "state": {"type": "str", "choices": ["alive", "drained", "shown"], "default": "alive"},
        },
        supports_check_mode=True,
    )
    params, changed = module.params, False
    if module.check_mode and params["state"] != "shown":
        module.exit_json(changed=params["state"] == "drained")
    end = time.monotonic() + params["timeout"]
    try:
        head = Head(params["dashboard_port"], Path(params["token_file"]).read_text(encoding="utf-8").strip())
        if params["state"] == "alive":
            changed = wait_alive(head, params["nodes"], end, params["applications"])
        elif params["state"] == "drained":
            changed = drain(head, params, end)
        nodes = until(end, head.nodes, str)
        applications = until(end, head.applications, str)
    except (RayError, OSError, subprocess.SubprocessError) as error:
        module.fail_json(msg=f"ray_nodes: {error}")
    seen = {"nodes": nodes, "applications": applications}
    module.exit_json(changed=changed, onprem_llm={"ray": seen}, **seen)


if __name__ == "__main__":
    main()
