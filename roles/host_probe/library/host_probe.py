#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""One look at a host: hardware, GPUs, docker, projects, weights, keys, the book. Reads only."""

from __future__ import annotations

import threading
import time
from pathlib import Path

from ansible.module_utils import onprem_llm_probe_engine as engine_part
from ansible.module_utils import onprem_llm_probe_facts as facts_part
from ansible.module_utils import onprem_llm_probe_gpus as gpus_part
from ansible.module_utils import onprem_llm_probe_machine as machine_part
from ansible.module_utils import onprem_llm_probe_registry as registry_part
from ansible.module_utils import onprem_llm_probe_schedule as schedule_part
from ansible.module_utils import onprem_llm_probe_serve as serve_part
from ansible.module_utils import onprem_llm_probe_serving as serving_part
from ansible.module_utils import onprem_llm_probe_state as state_part
from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
module: host_probe
short_description: Tell what a host is and what onprem-llm runs on it
description:
  - Returns hardware, GPUs, the docker engine with its images, the Compose projects below O(data_root), the weights,
    fingerprints of keys and secrets, the gateway's process, firewall and certificates, schedules, what Ray Serve says
    (on the host of the cluster's head), and the book, in one answer and with no change to the host.
  - Works on a host that has nothing but Python; what is absent is said to be so. A part that hangs (a sick GPU driver,
    a dead NFS server) is left out after a time limit and named under C(problems).
options:
  data_root:
    description: Folder of the Compose projects.
    type: path
    default: /srv/onprem-llm
  weights_dir:
    description: Folder of the weights.
    type: path
    default: /srv/onprem-llm/weights
  book_dir:
    description: Folder of the book.
    type: path
    default: /var/lib/onprem-llm
  salt:
    description:
      - Mixed into the fingerprints of keys and secrets, so that they mean nothing outside this run.
      - Without it no fingerprints are returned.
    type: str
    default: ""
  site:
    description: Site settings of the host, returned as they are.
    type: raw
    default: {}
  groups:
    description: Inventory groups of the host, returned as they are.
    type: list
    elements: str
    default: []
  ansible_host:
    description: Address by which Ansible reaches the host, returned as it is.
    type: str
    default: ""
  gang_interface:
    description: Network interface that the inventory wants gangs to use, returned as it is.
    type: str
    default: ""
  facts:
    description: Say what the host is, for facts.json, and nothing else.
    type: bool
    default: false
author: the onprem-llm authors
"""

EXAMPLES = r"""
- name: Look at the host
  host_probe:
    data_root: /srv/onprem-llm
"""

RETURN = r"""
onprem_llm:
  description: The answer, under the key C(probe), or C(facts) where O(facts) was asked for.
  type: dict
  returned: always
"""

SCHEMA = 2
TIME_LIMIT = 25.0  # seconds for all parts together; they run beside each other
ARGUMENTS = {
    "data_root": {"type": "path", "default": "/srv/onprem-llm"},
    "weights_dir": {"type": "path", "default": "/srv/onprem-llm/weights"},
    "book_dir": {"type": "path", "default": "/var/lib/onprem-llm"},
    "salt": {"type": "str", "default": "", "no_log": True},
    "site": {"type": "raw", "default": {}},
    "groups": {"type": "list", "elements": "str", "default": []},
    "ansible_host": {"type": "str", "default": ""},
    "gang_interface": {"type": "str", "default": ""},
    "facts": {"type": "bool", "default": False},
}


def gather(parts, limit=TIME_LIMIT):
    """Run the functions beside each other; return ({name: answer}, [what went wrong]).

    The threads are daemons: one that hangs in the kernel does not keep the module from ending.
    """
    answers, problems, threads = {}, [], {}

    def run(name, function):
        try:
            answers[name] = function()
        except Exception as error:  # one part that fails must not hide the others
            problems.append(f"{name}: {type(error).__name__}: {error}")

    for name, function in parts.items():
        threads[name] = threading.Thread(target=run, args=(name, function), daemon=True)
        threads[name].start()
    end = time.monotonic() + limit
    for name, thread in threads.items():
        thread.join(max(0.0, end - time.monotonic()))
        if thread.is_alive():
            problems.append(f"{name}: no answer within {limit:.0f} s")
    return dict(answers), sorted(problems)


def docker(data_root):
    """Return the parts that need the engine: engine, images, containers of each project, published ports."""
    found = {"engine": engine_part.engine(), "images": [], "containers": {}, "ports": {}}
    if found["engine"]["running"]:
        found["images"] = engine_part.images()
        found["containers"], found["ports"] = engine_part.containers(data_root)
    return found


def disks(data_root, weights_dir, docker_root):
    """Return the `disks` part of the probe, in bytes."""
    paths = {"data_root": data_root, "weights": weights_dir, "docker": docker_root or "/var/lib/docker"}
    return {name: machine_part.disk(path) for name, path in paths.items()}


def projects(data_root, salt, containers):
    """Return (projects, fingerprints of their secrets)."""
    found, secrets = {}, {}
    for name in sorted({*state_part.project_names(data_root), *containers}):
        found[name], secrets[name] = state_part.project(Path(data_root, name), salt)
        found[name]["containers"] = containers.get(name, [])
        if name == registry_part.PROJECT:
            found[name]["stored"] = registry_part.stored(Path(data_root, name))
    return found, secrets


def name_containers(listeners, ports):
    """Write beside each port of a container's proxy which container it is, and add ports that have no proxy."""
    for one in listeners:
        one["container"] = ports.pop((one["address"], one["port"]), None)
    for (address, port), name in sorted(ports.items()):
        listeners.append({"address": address, "port": port, "pid": None, "process": None, "container": name})
    return listeners


def probe(params):
    """Return the whole answer."""
    data_root, weights_dir = params["data_root"], params["weights_dir"]
    answers, problems = gather(
        {
            "host": machine_part.host,
            "gpus": gpus_part.gpus,
            "docker": lambda: docker(data_root),
            "compose": engine_part.compose_version,
            "listeners": machine_part.listeners,
            "weights": lambda: state_part.weights(weights_dir),
            "gateway": lambda: serving_part.gateway(data_root),
            "firewall": serving_part.firewall,
            "ray_firewall": serving_part.ray_firewall,
            "schedules": schedule_part.schedules,
            "network": lambda: state_part.network(params["book_dir"]),
            "certificates": lambda: serving_part.certificates(data_root, params["book_dir"]),
        }
    )
    seen = answers.get("docker") or {"engine": {"running": False, "error": "no answer"}, "images": [], "containers": {}}
    seen["engine"]["compose"] = answers.get("compose")
    answers_too, more_problems = gather(
        {
            "disks": lambda: disks(data_root, weights_dir, seen["engine"].get("root")),
            "projects": lambda: projects(data_root, params["salt"], seen["containers"]),
            "registry_strays": lambda: registry_part.strays(Path(data_root, registry_part.PROJECT)),
            "serve": lambda: serve_part.serve(data_root, seen["containers"].get(serve_part.HEAD, [])),
        }
    )
    own, secrets = answers_too.get("projects") or ({}, {})
    keys, client_keys = serving_part.split_keys(state_part.keys(data_root, params["salt"]))
    interfaces = machine_part.interfaces()
    addresses = list(interfaces)
    return {
        "schema": SCHEMA,
        "host": answers.get("host"),
        "disks": answers_too.get("disks") or {},
        "addresses": addresses,
        "interfaces": interfaces,
        "default_address": machine_part.default_address(addresses),
        "rdma": machine_part.rdma(),
        "listeners": name_containers(answers.get("listeners") or [], seen.get("ports") or {}),
        "gpus": answers.get("gpus") or {"tool": True, "error": "nvidia-smi did not answer", "devices": []},
        "engine": seen["engine"],
        "images": seen["images"],
        "projects": own,
        "registry_strays": answers_too.get("registry_strays") or 0,
        "keys": keys,
        "client_keys": client_keys,
        "gateway": answers.get("gateway"),
        "firewall": answers.get("firewall"),
        "ray_firewall": answers.get("ray_firewall"),
        "certificates": answers.get("certificates") or {},
        "healer": serving_part.healer(),
        "schedules": answers.get("schedules") or {},
        "serve": answers_too.get("serve"),
        "env_secrets": secrets,
        "weights": answers.get("weights") or {},
        "book": state_part.book(params["book_dir"]),
        "network": answers.get("network"),
        "lock": state_part.lock(),
        "problems": problems + more_problems,
        "site": params["site"],
        "groups": params["groups"],
        "ansible_host": params["ansible_host"],
        "gang_interface": params["gang_interface"],
    }


def facts():
    """Return what facts.json says of a host, and what of it could not be had."""
    answers, problems = gather({"facts": facts_part.facts})
    return {"facts": answers.get("facts"), "problems": problems}


def main():
    """Run as an Ansible module."""
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    # The arguments are in the answer already; Ansible would send them a second time.
    answer = {"facts": facts()} if module.params["facts"] else {"probe": probe(module.params)}
    module.exit_json(changed=False, invocation={}, onprem_llm=answer)


if __name__ == "__main__":
    main()
