# SPDX-License-Identifier: Apache-2.0
"""Waiting until Ray Serve serves what it was told, or until it is known that it will not."""

from __future__ import annotations

import time

from ansible.module_utils.onprem_llm_ray_api import APPLICATIONS, RayError
from ansible.module_utils.onprem_llm_ray_reasons import last_lines, no_room, said

PAUSE = 2.0  # seconds between two looks
# A replica for which no node has room for so long waits for what nobody is about to give: one that stops gives its own.
ROOM = 45.0
# One that was taken off is gone in a few seconds once it is idle; but one whose replica never found a node, only when
# the time for its requests (graceful_shutdown_timeout_s) is over. Nobody needs to wait for that.
LEAVING = 60.0
# Serve's last words about an application; UNHEALTHY may pass, when what a lost host ran has come up elsewhere.
FAILED, LEAVES = "DEPLOY_FAILED", "DELETING"


def is_told(document, found):
    """Tell whether Serve was told this document: it keeps each application as it was told, and some that leave."""
    apps = {name: app for name, app in found.get("applications", {}).items() if app.get("status") != LEAVES}
    told = {name: app.get("deployed_app_config") for name, app in apps.items()}
    return told == {app["name"]: app for app in document["applications"]}


def failed(found, names):
    """Return those of the applications that failed, and of those the ones of which some part does not run at all."""
    apps = found.get("applications", {})
    ended = [name for name in names if apps.get(name, {}).get("status") == FAILED]
    parts = {name: running(apps[name]) for name in ended}
    # No parts: it was not even built. Serve tries that again, and older replicas, which it does not show, may serve.
    return ended, [name for name in ended if parts[name] and not all(parts[name].values())]


def running(app):
    """Return part -> number of its replicas that run."""
    return {
        name: sum(replica.get("state") == "RUNNING" for replica in part.get("replicas") or [])
        for name, part in sorted((app.get("deployments") or {}).items())
    }


def stopping(found):
    """Tell whether some replica is on its way out, which gives room. Of an application that leaves Serve shows none."""
    return any(app.get("status") == LEAVES for app in found.get("applications", {}).values()) or any(
        replica.get("state") == "STOPPING"
        for app in found.get("applications", {}).values()
        for part in (app.get("deployments") or {}).values()
        for replica in part.get("replicas") or []
    )


class Wait:
    """Looks until the applications of a document that are named serve, and those that it does not list are gone."""

    def __init__(self, api, document, names, end):
        """Wait until `end` of the monotonic clock."""
        self.api, self.document, self.names, self.end = api, document, names, end
        self.without_room = self.only_leaving = None  # since when
        self.last = ""

    def run(self):
        """Return Serve's last answer; RayError where it will not come to it, as soon as that is known."""
        while True:
            found = self._asked()
            if found is not None and self._is_so(found):
                return found
            if time.monotonic() + PAUSE > self.end:
                raise RayError(f"not all serves in time: {self.last}. More of it: onprem-llm logs")
            time.sleep(PAUSE)

    def _asked(self):
        """Return the answer, None where there is none: a head may be starting."""
        try:
            return self.api.ask("GET", APPLICATIONS)
        except RayError:
            raise
        except Exception as error:  # http.client's have no common base with the others
            self.last = silent(self.api, error)
            return None

    def _is_so(self, found):
        apps = found.get("applications", {})
        self._check_failed(found)
        waiting = [name for name in self.names if apps.get(name, {}).get("status") != "RUNNING"]
        self._check_room(found, waiting)
        listed = [app["name"] for app in self.document["applications"]]
        leaving = [name for name in apps if name not in listed]
        seen = [f"{name}: {apps[name]['status']}, {said(apps[name])}" for name in waiting if name in apps]
        self.last = "; ".join([*seen, *(f"{name} is on its way out" for name in leaving)])
        if waiting or not is_told(self.document, found):
            return False
        self.only_leaving = self.only_leaving or time.monotonic()
        return not leaving or time.monotonic() - self.only_leaving >= LEAVING

    def _check_failed(self, found):
        ended = failed(found, self.names)[0]
        if not ended:
            return
        apps = found["applications"]
        own = [(name, last_lines(self.api, apps[name])) for name in ended]
        raise RayError(
            "; ".join(f"{name} does not start on Ray: {said(apps[name])}" for name in ended)
            + ". Expected replicas that run. Replicas that served before serve on: mend model.yaml and deploy"
            + "".join(
                f"\nThe last words of its replica (all: onprem-llm logs {name}):\n{text}" for name, text in own if text
            )
        )

    def _check_room(self, found, waiting):
        """Raise RayError once replicas have found no node for a while, and no other replica is making room."""
        try:
            missing = no_room(self.api, waiting) if waiting and not stopping(found) else {}
        except Exception:  # as in _asked; and what it says then is no reason to give up
            return
        if not missing:
            self.without_room = None
            return
        self.without_room = self.without_room or time.monotonic()
        if time.monotonic() - self.without_room >= ROOM:
            raise RayError(
                "; ".join(f"{name}: {why}" for name, why in sorted(missing.items()))
                + ". Expected a node with as much free: take other models off, lower replicas or the parallel sizes, "
                + ("or add a node" if self.api.elsewhere else "or add a worker: onprem-llm cluster add HOST")
            )


def silent(api, error):
    """Say that the head does not answer."""
    at = api.where.partition("//")[2]
    return f"Ray's dashboard on {at} does not answer: {type(error).__name__}: {error}"
