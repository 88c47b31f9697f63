#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""Take replicas out of the gateway's rotation and put them back."""

from __future__ import annotations

import re
import time
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.onprem_llm_haproxy import Gateway, HaproxyError, NotRunningError

DOCUMENTATION = r"""
module: gateway_route
short_description: Drain replicas at the gateway, or let them have requests again
description:
  - A server is named C(backend/server), which is deployment and project.
  - O(drain) waits until no request is on the server, in any worker, those before a reload included. What is
    left after O(wait) seconds is in the result; it is no error.
  - O(ready) waits until the gateway's own health check passes. It is an error if it does not within O(ready_wait)
    seconds; the message says what the check found.
  - O(let_in) waits for nothing, for servers that were down before anybody touched them.
  - Where no gateway runs, or where it does not know the server, nobody routes to it. So O(drain) is done, and O(ready)
    is an error.
options:
  path:
    description: Folder of the gateway's project.
    type: path
    required: true
  drain:
    description: Servers that get no new requests; those running go on.
    type: list
    elements: str
    default: []
  ready:
    description: Servers that get requests.
    type: list
    elements: str
    default: []
  let_in:
    description: Servers that get requests once the gateway's health check passes, now or later.
    type: list
    elements: str
    default: []
  wait:
    description: Seconds to wait for running requests.
    type: int
    default: 300
  ready_wait:
    description: Seconds to wait for the health check.
    type: int
    default: 30
  settle:
    description:
      - Seconds since the last reload before which no drain is done while an old worker lives. It cannot be told of the
        drain, and answers one last request on each connection that a client holds; clients drop idle ones in seconds.
    type: int
    default: 8
author: the onprem-llm authors
"""

EXAMPLES = r"""
- name: Drain a replica
  gateway_route:
    path: /srv/onprem-llm/gateway
    drain: [tiny/tiny-0]
    wait: 300
"""

RETURN = r"""
onprem_llm:
  description: C(routes) by server, each with C(state) (C(absent) where nobody routes to it) and C(sessions).
  type: dict
  returned: success
"""

POLL = 0.25  # seconds
STATES = {"drain": "drain", "let_in": "ready", "ready": "ready"}  # option -> state
STATE_FILE = Path("state", "servers")


def change(gateway, wanted, check_mode):
    """Set {server: state} in the worker that takes requests; return (changed, its servers as they were).

    Old workers refuse ("Proxy is disabled"): they take no new requests anyway, and are waited for.
    """
    worker = gateway.worker()
    known = worker.servers()
    changed = [name for name, state in wanted.items() if name in known and known[name]["admin"] != state]
    for name in changed if not check_mode else ():
        worker.tell(f"set server {name} state {wanted[name]}")
    return bool(changed), known


def sessions(gateway, names):
    """Return {server: requests on it now}, over all workers."""
    found = dict.fromkeys(names, 0)
    for worker in gateway.workers():
        for name, server in worker.servers().items():
            if name in found:
                found[name] += server["sessions"]
    return found


def settled(gateway, limit):
    """Say whether no old worker is left, or the last reload is `limit` seconds ago."""
    workers = gateway.workers()
    uptime = re.search(r"^Uptime_sec: (\d+)", workers[0].ask("show info"), re.MULTILINE)
    return len(workers) == 1 or not uptime or int(uptime.group(1)) >= limit


def await_idle(gateway, names, limit, settle):
    """Wait until no request is on the servers; return {server: what is left}."""
    end = time.monotonic() + limit
    while True:
        calm = settled(gateway, settle)
        left = sessions(gateway, names)  # after the look at the clock: what came until then is seen
        if (calm and not any(left.values())) or time.monotonic() > end:
            return left
        time.sleep(POLL)


def await_up(gateway, names, limit):
    """Wait until the gateway's checks pass; HaproxyError names those that do not and why."""
    end = time.monotonic() + limit
    while True:
        servers = gateway.worker().servers()
        down = {name: servers[name]["check"] for name in names if not servers[name]["up"]}
        if not down:
            return servers
        if time.monotonic() > end:
            said = "; ".join(f"{name}: {check or 'not checked yet'}" for name, check in sorted(down.items()))
            raise HaproxyError(f"the gateway's health check did not pass within {limit} s: {said}")
        time.sleep(POLL)


def run(params, check_mode):
    """Return (changed, routes)."""
    gateway = Gateway(params["path"])
    wanted = {name: state for option, state in STATES.items() for name in params[option]}
    leaving = [name for name, state in wanted.items() if state != "ready"]
    try:
        changed, known = change(gateway, wanted, check_mode)
    except NotRunningError:
        if params["ready"]:
            raise
        return False, {name: {"state": "absent", "sessions": 0} for name in wanted}
    missing = sorted(name for name in params["ready"] if name not in known)
    if missing:
        raise HaproxyError(
            f"the gateway does not know {', '.join(missing)}; it has {', '.join(sorted(known)) or 'none'}"
        )
    if check_mode:
        return changed, {}
    if changed:
        # A gateway that is restarted reads this: it must not bring a drained replica back, nor keep one out.
        gateway.dump_state(Path(params["path"]) / STATE_FILE)
    there = [name for name in leaving if name in known]
    left = await_idle(gateway, there, params["wait"], params["settle"]) if there else {}
    routes = {name: {"state": wanted[name], "sessions": count} for name, count in left.items()}
    routes.update({name: {"state": "absent", "sessions": 0} for name in leaving if name not in known})
    if params["ready"]:
        servers = await_up(gateway, params["ready"], params["ready_wait"])
        routes.update({name: {"state": "ready", "sessions": servers[name]["sessions"]} for name in params["ready"]})
    return changed, routes


def main():
    """Run as an Ansible module."""
    names = {"type": "list", "elements": "str", "default": []}
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "drain": names,
            "ready": names,
            "let_in": names,
            "wait": {"type": "int", "default": 300},
            "ready_wait": {"type": "int", "default": 30},
            "settle": {"type": "int", "default": 8},
        },
        supports_check_mode=True,
    )
    try:
        changed, routes = run(module.params, module.check_mode)
    except (HaproxyError, OSError) as error:
        module.fail_json(msg=f"cannot change the gateway's routes: {error}")
    module.exit_json(changed=changed, onprem_llm={"routes": routes})


if __name__ == "__main__":
    main()
