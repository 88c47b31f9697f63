#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""Ray Serve's one document: told to Serve where it says otherwise, and waited for until what changed in it serves."""

from __future__ import annotations

import json
import time
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.onprem_llm_ray_api import APPLICATIONS, RayApi, RayError
from ansible.module_utils.onprem_llm_ray_reasons import said
from ansible.module_utils.onprem_llm_ray_shared import Ledger, SharedApi, proxy
from ansible.module_utils.onprem_llm_ray_wait import FAILED, PAUSE, Wait, failed, is_told, running, silent

DOCUMENTATION = r"""
module: ray_serve
short_description: Tell Ray Serve its document, and wait until what changed serves
description:
  - Runs on the head's host, or on a gateway host for a cluster that somebody else runs.
  - Compares the document with what Serve was told last. Where both are the same nothing is told, since an application
    that is being built would be begun anew.
  - What the document does not list, Serve removes; a minute is waited until it is gone.
  - Told the same, Serve does not try again what failed. Where one of O(names) has a part of which nothing runs, it is
    removed and told again.
  - An application that is not one of O(names) is told as it stands, and not waited for. That it is not well is a
    warning.
options:
  document:
    description: File on this host with Serve's configuration as JSON, with all applications.
    type: path
    required: true
  names:
    description: Applications that must serve; without it all of the document, with an empty list none.
    type: list
    elements: str
  dashboard_port:
    description: Port of the head's dashboard on 127.0.0.1.
    type: int
  address:
    description:
      - Address of the dashboard of a cluster that somebody else runs, http(s)://HOST:PORT. Its other applications are
        told as they stand, so that they stay.
      - Ours is what Serve has as O(document), O(ours) or told.json beside the document (what it was told from this
        host) have it. An application of such a name that is otherwise fails this.
    type: str
  ours:
    description: >-
      With O(address): name of each application that is ours -> sha256 of each way in which it may have been told,
      beside the document's.
    type: dict
    default: {}
  runs:
    description: >-
      With O(address): Serve ran when it was looked at. Then an answer without it is no reason to tell anything; it is
      asked again.
    type: bool
    default: false
  token_file:
    description: File of the cluster's token on this host; without it none is sent.
    type: path
  timeout:
    description: Seconds until they must serve.
    type: int
    default: 1800
author: the onprem-llm authors
"""

EXAMPLES = r"""
- name: Tell Ray Serve
  ray_serve:
    document: /srv/onprem-llm/ray-serve/serve.json
    names: [tiny]
    dashboard_port: 20007
    token_file: /srv/onprem-llm/secrets/ray_token
"""

RETURN = r"""
applications:
  description: Each application's status, and how many replicas of each of its parts run.
  type: dict
  returned: success
proxy:
  description: With O(address), a proxy of Ray Serve's that this host reaches; empty while there is none.
  type: str
  returned: success
"""


# Seconds for a head that does not answer at all; it takes half a minute to start.
SILENT = 300.0


def port_problem(document, found, elsewhere=False):
    """Say where Serve listens, if that is another port than the document's: it keeps its first one."""
    listens = (found.get("http_options") or {}).get("port")
    wanted = document["http_options"]["port"]
    if not found.get("proxies") or listens == wanted:
        return None
    return (
        f"Ray Serve listens on port {listens}, expected {wanted}: it keeps the port that it began with. "
        f"Set onprem_llm_site.ray.serve_port to {listens}"
        + ("" if elsewhere else ", or run cluster down and cluster up")
    )


def answered(api, end, method, body=None, is_current=None):
    """Ask until there is an answer: a head that has just started has none for half a minute.

    `is_current` tells before each try whether what is told is still to be told.
    """
    end = min(end, time.monotonic() + SILENT)
    while True:
        if is_current and not is_current():
            raise RayError("another document was written meanwhile, by the run that follows this one: nothing was told")
        try:
            return api.ask(method, APPLICATIONS, body)
        except RayError:
            raise
        except Exception as error:  # http.client's have no common base with the others
            if time.monotonic() + PAUSE > end:
                raise RayError(f"{silent(api, error)}. Look at the head: onprem-llm cluster status") from error
        time.sleep(PAUSE)


def tell(api, document, names, end, check=False, is_current=None):
    """Bring Serve to the document; return whether it was told anything, and its last answer."""
    found = answered(api, end, "GET")
    problem = port_problem(document, found, api.elsewhere)
    if problem:
        raise RayError(problem)
    if api.elsewhere and names:
        proxy(found)
    unbuilt, again = failed(found, names)
    changed = not is_told(document, found) or bool(unbuilt)
    if check:
        return changed, found
    if again:
        rest = [app for app in document["applications"] if app["name"] not in again]
        answered(api, end, "PUT", {**document, "applications": rest}, is_current)
    if changed:
        answered(api, end, "PUT", document, is_current)
    return changed, Wait(api, document, names, end).run()


def warnings(document, names, found):
    """Say which applications have not gone yet, and which that were not asked for are not well."""
    listed = [app["name"] for app in document["applications"]]
    others = [name for name in listed if name not in names]
    apps = found.get("applications", {})
    return [
        f"{name} is still on its way out: Ray gives its requests the time of update.drain_timeout, although none comes"
        for name in sorted(apps)
        if name not in listed
    ] + [
        f"{name}, which this does not change, is {apps[name]['status']} on Ray: {said(apps[name])}"
        for name in others
        if apps.get(name, {}).get("status") in (FAILED, "UNHEALTHY")
    ]


def way_in(api, found, end):
    """Return the address of a proxy that is well; Serve starts them by itself."""
    while True:
        way = proxy(found)
        if way:
            return way
        if time.monotonic() + PAUSE > end:
            raise RayError("none of Ray Serve's proxies became HEALTHY. Look at them: onprem-llm cluster status")
        time.sleep(PAUSE)
        found = answered(api, end, "GET")


def api_of(params, document):
    """Return the API that the parameters name."""
    file = params["token_file"]
    token = Path(file).read_text(encoding="utf-8").strip() if file else ""
    if not params["address"]:
        return RayApi(params["dashboard_port"], token)
    address = params["address"]
    ledger = Ledger(Path(params["document"]).with_name("told.json"), address)
    return SharedApi(RayApi(address, token), params["ours"], document, ledger, params["runs"])


def main():
    """Run as an Ansible module."""
    module = AnsibleModule(
        argument_spec={
            "document": {"type": "path", "required": True},
            "names": {"type": "list", "elements": "str"},
            "dashboard_port": {"type": "int"},
            "address": {"type": "str"},
            "ours": {"type": "dict", "default": {}},
            "runs": {"type": "bool", "default": False},
            "token_file": {"type": "path", "no_log": False},
            "timeout": {"type": "int", "default": 1800},
        },
        required_one_of=[["dashboard_port", "address"]],
        supports_check_mode=True,
    )
    params = module.params
    end = time.monotonic() + params["timeout"]
    try:
        path = Path(params["document"])
        text = path.read_text(encoding="utf-8")
        document = json.loads(text)
        listed = [app["name"] for app in document["applications"]]
        api = api_of(params, document)
        names = listed if params["names"] is None else [name for name in params["names"] if name in listed]
        # A run that was cut off may leave this behind on the host, while the next one tells another document.
        current = lambda: path.read_text(encoding="utf-8") == text  # noqa: E731
        changed, found = tell(api, document, names, end, module.check_mode, current)
        if api.elsewhere and not module.check_mode:
            api.ledger.settle(document["applications"], found["applications"])
        way = way_in(api, found, end) if api.elsewhere and names and not module.check_mode else ""
    except (RayError, OSError, ValueError) as error:
        module.fail_json(msg=f"ray_serve: {error}")
    for text in warnings(document, names, found):
        module.warn(text)
    seen = {name: {"status": app.get("status"), "running": running(app)} for name, app in found["applications"].items()}
    module.exit_json(changed=changed, applications=seen, proxy=way)


if __name__ == "__main__":
    main()
