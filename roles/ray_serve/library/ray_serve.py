#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""Ray Serve's one document: told to Serve where it says otherwise, and waited for until all of it serves."""

from __future__ import annotations

import http.client
import json
import time
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
module: ray_serve
short_description: Tell Ray Serve its document, and wait until all of it serves
description:
  - Runs on the head's host. Compares the document with what Serve was told last. Where both are the same nothing is
    told, since an application that is being built would be begun anew.
  - What the document does not list, Serve removes.
  - Told the same, Serve does not try again what failed. Where an application has a part of which nothing runs, it is
    removed and told again.
options:
  document:
    description: File on this host with Serve's configuration as JSON, with all applications.
    type: path
    required: true
  dashboard_port:
    description: Port of the head's dashboard on 127.0.0.1.
    type: int
    required: true
  token_file:
    description: File of the cluster's token on this host.
    type: path
    required: true
  timeout:
    description: Seconds until all applications must serve.
    type: int
    default: 1800
author: the onprem-llm authors
"""

EXAMPLES = r"""
- name: Tell Ray Serve
  ray_serve:
    document: /srv/onprem-llm/ray-serve/serve.json
    dashboard_port: 20007
    token_file: /srv/onprem-llm/secrets/ray_token
"""

RETURN = r"""
applications:
  description: Each application's status, and how many replicas of each of its parts run.
  type: dict
  returned: success
"""

APPLICATIONS = "/api/serve/applications/"
PAUSE = 2.0  # seconds between two looks
ANSWER = 30  # seconds for one answer: a PUT waits for Serve's controller, which may have to start
REASON = 700  # characters of Ray's own words
# Serve's last words about an application; UNHEALTHY may pass, when what a lost host ran has come up elsewhere.
FAILED = "DEPLOY_FAILED"


class ServeError(Exception):
    """What was found and expected, and what to do; for a person."""


class Serve:
    """Ray Serve's API on the head's dashboard."""

    def __init__(self, port, token):
        """Name its port on 127.0.0.1, and the cluster's token."""
        self.port, self.token = port, token

    def ask(self, method, body=None):
        """Return the decoded answer, None where it has none.

        Raises OSError, HTTPException or ValueError while nobody answers as expected; ServeError for a refusal.
        """
        headers = {"Authorization": "Bearer " + self.token, "Content-Type": "application/json"}
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=ANSWER)
        try:
            connection.request(method, APPLICATIONS, None if body is None else json.dumps(body), headers)
            answer = connection.getresponse()
            status, text = answer.status, answer.read().decode("utf-8", "replace")
        finally:
            connection.close()
        if status in (401, 403):
            raise ServeError(
                f"Ray refuses the token of this host ({status}): the head was started with another one. "
                "Run onprem-llm cluster up"
            )
        if status == 400:
            raise ServeError(f"Ray Serve does not take the document: {text[:REASON]}. Take an image with another Ray")
        if status != 200:
            raise ValueError(f"it answered {status}: {text[:200]}")
        return json.loads(text) if text.strip() else None


def is_told(document, found):
    """Tell whether Serve was told this document: it keeps each application as it was told."""
    told = {name: app.get("deployed_app_config") for name, app in found.get("applications", {}).items()}
    return told == {app["name"]: app for app in document["applications"]}


def failed(found):
    """Return names of applications that failed, and of those among them of which some part does not run at all."""
    names = [name for name, app in sorted(found.get("applications", {}).items()) if app.get("status") == FAILED]
    parts = {name: running(found["applications"][name]) for name in names}
    # No parts: it was not even built. Serve tries that again, and older replicas, which it does not show, may serve.
    return names, [name for name in names if parts[name] and not all(parts[name].values())]


def running(app):
    """Return part -> number of its replicas that run."""
    return {
        name: sum(replica.get("state") == "RUNNING" for replica in part.get("replicas") or [])
        for name, part in sorted((app.get("deployments") or {}).items())
    }


def reason(app):
    """Return what Ray says of an application's parts that are not well, else of itself; the last words of each."""
    parts = [
        f"{name}: {last_words(part['message'])}"
        for name, part in sorted((app.get("deployments") or {}).items())
        if part.get("message") and part.get("status") != "HEALTHY"
    ]
    return "; ".join(parts or [last_words(app.get("message") or "Ray says nothing of it")])


def last_words(message):
    """Return the last line that is not part of a traceback's body."""
    lines = [line.strip() for line in message.splitlines() if line.strip(" ^~") and not line.startswith(" ")]
    return (lines or [message.strip()])[-1][:REASON]


def port_problem(document, found):
    """Say where Serve listens, if that is another port than the document's: it keeps its first one."""
    listens = (found.get("http_options") or {}).get("port")
    wanted = document["http_options"]["port"]
    if not found.get("proxies") or listens == wanted:
        return None
    return (
        f"Ray Serve listens on port {listens}, expected {wanted}: it keeps the port that it began with. "
        f"Set onprem_llm_site.ray.serve_port to {listens}, or run cluster down and cluster up"
    )


def wait(serve, document, end):
    """Wait until every application of the document runs; return the last answer."""
    wanted = [app["name"] for app in document["applications"]]
    last = ""
    while True:
        try:
            found = serve.ask("GET")
            apps = found.get("applications", {})
            ended = [name for name in wanted if name in failed(found)[0]]
            if ended:
                said = "; ".join(f"{name} does not start on Ray: {reason(apps[name])}" for name in ended)
                raise ServeError(
                    f"{said}. What served before serves on. Ray tries the same again only where nothing serves: mend "
                    "model.yaml and deploy, or roll back. More of it is in Ray's log, in the node's container"
                )
            waiting = [name for name in wanted if apps.get(name, {}).get("status") != "RUNNING"]
            if not waiting and is_told(document, found):
                return found
            last = "; ".join(
                f"{name}: {apps[name]['status']}, {reason(apps[name])}" for name in waiting if name in apps
            )
        except (OSError, http.client.HTTPException, ValueError) as error:
            last = f"Ray's dashboard on 127.0.0.1:{serve.port} does not answer: {type(error).__name__}: {error}"
        if time.monotonic() + PAUSE > end:
            raise ServeError(
                f"not all serves in time: {last}. A replica that waits finds no node with room for it: "
                "onprem-llm cluster status shows what there is"
            )
        time.sleep(PAUSE)


def answered(serve, end, method, body=None):
    """Ask until there is an answer: a head that has just started has none for half a minute."""
    while True:
        try:
            return serve.ask(method, body)
        except (OSError, http.client.HTTPException, ValueError) as error:
            if time.monotonic() + PAUSE > end:
                raise ServeError(
                    f"Ray's dashboard on 127.0.0.1:{serve.port} does not answer: {type(error).__name__}: {error}. "
                    "Look at the head: onprem-llm cluster status"
                ) from error
        time.sleep(PAUSE)


def tell(serve, document, end, check=False):
    """Bring Serve to the document; return whether it was told anything, and its last answer."""
    found = answered(serve, end, "GET")
    problem = port_problem(document, found)
    if problem:
        raise ServeError(problem)
    unbuilt, again = failed(found)
    changed = not is_told(document, found) or bool(unbuilt)
    if check:
        return changed, found
    if again:
        rest = [app for app in document["applications"] if app["name"] not in again]
        answered(serve, end, "PUT", {**document, "applications": rest})
    if changed:
        answered(serve, end, "PUT", document)
    return changed, wait(serve, document, end)


def main():
    """Run as an Ansible module."""
    module = AnsibleModule(
        argument_spec={
            "document": {"type": "path", "required": True},
            "dashboard_port": {"type": "int", "required": True},
            "token_file": {"type": "path", "required": True, "no_log": False},
            "timeout": {"type": "int", "default": 1800},
        },
        supports_check_mode=True,
    )
    params = module.params
    end = time.monotonic() + params["timeout"]
    try:
        serve = Serve(params["dashboard_port"], Path(params["token_file"]).read_text(encoding="utf-8").strip())
        document = json.loads(Path(params["document"]).read_text(encoding="utf-8"))
        changed, found = tell(serve, document, end, module.check_mode)
    except (ServeError, OSError, ValueError) as error:
        module.fail_json(msg=f"ray_serve: {error}")
    seen = {name: {"status": app.get("status"), "running": running(app)} for name, app in found["applications"].items()}
    module.exit_json(changed=changed, applications=seen)


if __name__ == "__main__":
    main()
