# SPDX-License-Identifier: Apache-2.0
"""A Ray cluster that serves other people, too: their applications stay, and are neither judged nor waited for.

Serve's PUT removes what was told by PUT before and is not listed. So each PUT lists theirs as they stand, and Serve's
options as they are. Serve has no way to say "only if nobody told it anything meanwhile": theirs are asked for right
before.
"""

from __future__ import annotations

import json
import socket
from concurrent.futures import ThreadPoolExecutor, as_completed

from ansible.module_utils.onprem_llm_ray_api import APPLICATIONS, RayError, told_digest
from ansible.module_utils.onprem_llm_ray_wait import LEAVES

# What the dashboard puts in the place of a secret where it takes the asker for a browser.
HIDDEN = "<redacted>"
# What a PUT would set back where it does not say it.
OPTIONS = ("proxy_location", "http_options", "grpc_options", "target_capacity")
LOOPBACK = ("127.0.0.1", "localhost", "::1")
REACH = 5.0  # seconds for a connection
AT_ONCE = 16  # connections: silent nodes are not waited for one after another


class SharedApi:
    """The API of such a cluster: as RayApi, but with our applications alone."""

    elsewhere = True

    def __init__(self, api, ours, document, ledger, runs=False):
        """Take the API, and what is ours beside what the ledger has: the document's, and name -> digests in `ours`.

        A name alone makes nothing ours: somebody else may have taken it. `runs`: Serve ran already.
        """
        self.api, self.where, self.ledger, self.runs = api, api.where, ledger, runs
        self.ours = {name: set(digests) for name, digests in ours.items()}
        for app in document["applications"]:
            self.ours.setdefault(app["name"], set()).add(told_digest(app))

    def text(self, method, path, body=None):
        """Return the answer as it comes."""
        return self.api.text(method, path, body)

    def ask(self, method, path, body=None):
        """Return the answer, of applications ours alone; tell theirs beside ours.

        RayError where an application of a name of ours is somebody else's: each time, as it may be taken meanwhile.
        """
        if path != APPLICATIONS:
            return self.api.ask(method, path, body)
        found = self.api.ask("GET", APPLICATIONS)
        if not found.get("http_options") and not found.get("controller_info"):
            # So Ray answers where nobody serves, and where its dashboard does not find Serve for a moment.
            if self.runs:
                raise ValueError("it answers as if Ray Serve did not run, expected Serve, which ran a moment ago")
        else:
            self.runs = True
        theirs = self._theirs(found)
        taken = [name for name in sorted(self.ours) if name in theirs and theirs[name].get("status") != LEAVES]
        if taken:
            raise RayError(
                f"the Ray cluster at {self.where} has an application {', '.join(taken)} that is not ours: it is not as "
                "it was told from this host. Give the deployment another name, or have who runs the cluster take it "
                "away. It was left as it is"
            )
        if method == "GET":
            mine = {name: app for name, app in found["applications"].items() if name not in theirs}
            return {**found, "applications": mine}
        unsaid = sorted(name for name, app in found["applications"].items() if _is_unsaid(app))
        if unsaid:
            raise RayError(
                f"Ray Serve at {self.where} does not say what it was told of {', '.join(unsaid)}, expected that of "
                "each application: what is not told again goes. Nothing was told; run this again once it says so"
            )
        whole = beside(theirs, found, body)
        self.ledger.add(body["applications"])
        return self.api.ask(method, path, whole)

    def _theirs(self, found):
        known, theirs = self.ledger.read(), {}
        for name, app in found["applications"].items():
            mine = self.ours.get(name, set()).union(known.get(name, ()))
            # On its way out, Serve does not say any more what it was told; it is told to nobody.
            leaves = mine and app.get("status") == LEAVES
            # What it says nothing of for a moment may be ours; nothing is told then.
            unsaid = mine and _is_unsaid(app)
            if not leaves and not unsaid and told_digest(app.get("deployed_app_config") or {}) not in mine:
                theirs[name] = app
        return theirs


class Ledger:
    """What a cluster was told from this host, name -> digests, in a file: whose an application there is.

    The file has it by the clusters' addresses: what one was told says nothing of another.
    """

    def __init__(self, path, address):
        """Name the file, which need not be there, and the cluster's address."""
        self.path, self.address = path, address

    def read(self):
        """Return what it has of this cluster, nothing where it cannot be read."""
        return self.whole().get(self.address, {})

    def whole(self):
        """Return what it has of all, address -> name -> digests."""
        try:
            found = json.loads(self.path.read_text(encoding="utf-8"))
            return {at: {name: list(told) for name, told in apps.items()} for at, apps in found.items()}
        except (OSError, ValueError, AttributeError, TypeError):
            return {}

    def add(self, applications):
        """Write down what is about to be told: the answer to that may be lost."""
        known = self.read()
        for app in applications:
            mine = known.setdefault(app["name"], [])
            if told_digest(app) not in mine:
                mine.append(told_digest(app))
        self._write(known)

    def settle(self, applications, there):
        """Keep what Serve has been told last, and what is still `there`, on its way out."""
        known = self.read()
        kept = {name: digests for name, digests in known.items() if name in there}
        kept.update({app["name"]: [told_digest(app)] for app in applications})
        if kept != known:
            self._write(kept)

    def _write(self, known):
        part = self.path.with_suffix(".part")
        known = {at: apps for at, apps in {**self.whole(), self.address: known}.items() if apps}
        part.write_text(json.dumps(known, indent=2, sort_keys=True) + "\n", encoding="utf-8")
        part.replace(self.path)


def _is_unsaid(app):
    # What was started from a program (serve.run) was never told.
    is_told = app.get("source") != "imperative" and app.get("status") != LEAVES
    return is_told and not app.get("deployed_app_config")


def beside(theirs, found, document):
    """Return what is PUT: the document, theirs as they stand, and Serve's options as they are."""
    kept = [
        app["deployed_app_config"]
        for name, app in sorted(theirs.items())
        # What was started from a program (serve.run) no PUT removes, and none can list.
        if app.get("source") != "imperative" and app.get("deployed_app_config") and app.get("status") != LEAVES
    ]
    hidden = [one["name"] for one in kept if HIDDEN in json.dumps(one)]
    if hidden:
        raise RayError(
            f"Ray hides the environment of {', '.join(hidden)}, which is not ours and would lose it: nothing was told. "
            "Have the dashboard's address lead to Ray itself, not by way of a web proxy that speaks as a browser"
        )
    # Serve says null where it was told nothing.
    options = {name: found[name] for name in OPTIONS if found.get(name) is not None}
    return {**document, **options, "applications": kept + document["applications"]}


def proxy(found):
    """Return the address of a proxy of Serve's that this host reaches, http://HOST:PORT; None where there is none yet.

    RayError where those that are well cannot be reached.
    """
    options = found.get("http_options") or {}
    well = sorted(one["node_ip"] for one in (found.get("proxies") or {}).values() if one["status"] == "HEALTHY")
    if not well:
        return None
    listens, port = options.get("host") or "", options.get("port")
    if listens in LOOPBACK:
        raise RayError(
            f"Ray Serve's proxies listen on {listens} alone, expected an address that gateways reach. Who runs the "
            "cluster has to shut Serve down (serve shutdown) and start it with http_options: {host: 0.0.0.0}"
        )
    several = ThreadPoolExecutor(AT_ONCE)
    asked = {several.submit(_closed, address, port): address for address in well}
    closed = {}
    for one in as_completed(asked):
        address = asked[one]
        closed[address] = one.result()
        if closed[address] is None:
            several.shutdown(wait=False, cancel_futures=True)
            return f"http://{f'[{address}]' if ':' in address else address}:{port}"
    said = "; ".join(f"{address}:{port}: {closed[address]}" for address in well)
    raise RayError(
        f"this gateway host reaches none of Ray Serve's proxies: {said}. Open that port of the cluster's "
        "nodes for the gateway hosts"
    )


def _closed(address, port):
    """Say why nothing there can be connected to; None where it can."""
    try:
        socket.create_connection((address, port), timeout=REACH).close()
    except OSError as error:
        return error.strerror or str(error)
    return None
