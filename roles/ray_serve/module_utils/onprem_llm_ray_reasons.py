# SPDX-License-Identifier: Apache-2.0
"""Why a replica does not start on Ray: what Ray says, the last lines that it wrote, and for which no node has room."""

from __future__ import annotations

import re

from ansible.module_utils.onprem_llm_ray_api import REASON, last_words

GROUPS = "/api/v0/placement_groups?detail=1&limit=10000"
NODES = "/api/v0/nodes?detail=1&limit=10000"
FILES = "/api/v0/logs?node_ip={address}&glob={glob}"
LINES = "/api/v0/logs/file?node_ip={address}&filename={name}&lines={lines}"
# How far back, and how many lines of it: the cause stands above the traceback of the engine that missed its answer.
READ, SHOWN = 300, 4
ERROR = re.compile(r"\b[A-Z]\w*(Error|Exception)\b")
OF_RAY = (":job_id:", ":actor_name:", ":task_name:")
# Ray's name of a replica's place, which ends with what names the replica alone.
OWNER = "SERVE_REPLICA::"
COUNTED = ("CPU", "GPU")


def said(app):
    """Return what Ray says of an application's parts that are not well, else of itself; the last words of each."""
    parts = [
        f"{name}: {last_words(part['message'])}"
        for name, part in sorted((app.get("deployments") or {}).items())
        if part.get("message") and part.get("status") != "HEALTHY"
    ]
    return "; ".join(parts or [last_words(app.get("message") or "Ray says nothing of it")]).rstrip(".")


def last_lines(api, app):
    """Return the lines in which a replica that did not start named an error, '' without any.

    Where Ray's own words name none, its last lines: it may have been killed.
    """
    known = ERROR.search(said(app))
    parts = (app.get("deployments") or {}).values()
    unwell = [one for part in parts for one in part.get("replicas") or [] if one.get("state") != "RUNNING"]
    ended = [*unwell, *(one for part in parts for one in part.get("recent_dead_replicas") or [])]
    placed = [one for one in ended if one.get("node_ip") and one.get("worker_id")]
    last = max(placed, key=lambda one: one.get("start_time_s") or 0, default=None)
    return "\n".join(line[:REASON] for line in _lines(api, last, any_line=not known)) if last else ""


def _lines(api, replica, any_line):
    address, worker = replica["node_ip"], replica["worker_id"]
    try:
        groups = api.ask("GET", FILES.format(address=address, glob="worker-" + worker + "*"))["data"]["result"]
        names = sorted(name for group in groups.values() for name in group)
        texts = [api.text("GET", LINES.format(address=address, name=name, lines=READ)) for name in names]
    except Exception:  # the node may be the one that was lost: the reason without these is better than none
        return []
    lines = [line for text in texts for line in text.splitlines() if line.strip() and not line.startswith(OF_RAY)]
    named = [line for line in lines if ERROR.search(line)]
    return (named or (lines if any_line else []))[-SHOWN:]


def no_room(api, names):
    """Return {application: why no node has room for a replica of it}, of those that wait for room now."""
    groups = [one for one in _listed(api, GROUPS) if one.get("name", "").startswith(OWNER)]
    waiting = {}
    for one in groups:
        name = one["name"][len(OWNER) :].partition("#")[0]
        if one["state"] == "PENDING" and name in names:
            waiting.setdefault(name, one)
    if not waiting:
        return {}
    nodes = _nodes(api, groups)
    return {name: f"no node has room for {_asked(one)}; there is {nodes or 'no node'}" for name, one in waiting.items()}


def _listed(api, path):
    return api.ask("GET", path)["data"]["result"]["result"]


def _asked(group):
    parts = [_amount(bundle["unit_resources"]) for bundle in group["bundles"]]
    counted = [f"{parts.count(one)} times {one}" if parts.count(one) > 1 else one for one in dict.fromkeys(parts)]
    return f"one more replica, which takes {' and '.join(counted)}"


def _nodes(api, groups):
    """Say of each node that is alive what it has, and what replicas take of it."""
    taken = {}
    for bundle in (bundle for one in groups if one["state"] == "CREATED" for bundle in one["bundles"]):
        for kind, many in bundle["unit_resources"].items():
            mine = taken.setdefault(bundle["node_id"], {})
            mine[kind] = mine.get(kind, 0) + many
    alive = [one for one in _listed(api, NODES) if one["state"] == "ALIVE"]
    return "; ".join(
        f"{one['node_ip']} with {_amount(one.get('resources_total') or {})}, of which replicas take "
        f"{_amount(taken.get(one['node_id'], {}))}"
        for one in sorted(alive, key=lambda one: one["node_ip"])
    )


def _amount(resources):
    found = [f"{resources[kind]:g} {kind}" for kind in COUNTED if resources.get(kind)]
    return ", ".join(found) or "none"
