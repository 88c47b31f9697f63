# SPDX-License-Identifier: Apache-2.0
"""What Ray Serve says of its applications, in the words of the look (cli/onprem_llm/serve_state.py reads them)."""

from __future__ import annotations

from ansible.module_utils.onprem_llm_ray_api import last_words, told_digest


def serve_said(answer):
    """Return port, proxies and applications of an answer to GET; KeyError where it is not as Ray 2.60's."""
    return {
        # None before anything was served: then Serve has not begun.
        "port": (answer.get("http_options") or {}).get("port"),
        "proxies": {one["node_ip"]: one["status"] for one in (answer.get("proxies") or {}).values()},
        "applications": {name: _application(app) for name, app in (answer.get("applications") or {}).items()},
    }


def _application(app):
    return {
        "status": app["status"],
        "message": last_words(app.get("message") or ""),
        "told": told_digest(app.get("deployed_app_config") or {}),
        "route": app.get("route_prefix"),
        "deployed_at": app.get("last_deployed_time_s"),
        "parts": {name: _part(part) for name, part in (app.get("deployments") or {}).items()},
    }


def _part(part):
    return {
        "status": part["status"],
        "message": last_words(part.get("message") or ""),
        "target": part.get("target_num_replicas"),
        "replicas": [_replica(one) for one in part.get("replicas") or []],
        "dead": [_replica(one) for one in part.get("recent_dead_replicas") or []],
    }


def _replica(one):
    return {
        "id": one["replica_id"],
        "state": one["state"],
        "address": one.get("node_ip"),  # None while Ray looks for a node with room
        "log": one.get("log_file_path"),
        "worker": one.get("worker_id"),
        "started": one.get("start_time_s"),
    }
