# SPDX-License-Identifier: Apache-2.0
"""What Ray Serve says, asked on the host of the cluster's head alone. It is told what it serves by role ray_serve."""

from __future__ import annotations

from pathlib import Path

from ansible.module_utils.onprem_llm_ray_api import APPLICATIONS, RayApi, RayError
from ansible.module_utils.onprem_llm_ray_said import serve_said

HEAD = "ray-head"  # the project's folder, and
DASHBOARD = 7  # the dashboard's place in the range of ports that its label names (cli/onprem_llm/rendering/ray_node.py)
TOKEN = "ray_token"  # noqa: S105 - a file below secrets/
TIME_LIMIT = 5.0  # seconds; a head that is well takes a fiftieth of one


class _NobodyToAskError(Exception):
    """Why nobody can be asked."""


def serve(data_root, containers):
    """Return the `serve` part of the probe: error, port, proxies, applications. None on a host without a head.

    `containers`: those of the project ray-head, as the probe returns them.
    """
    if not containers and not Path(data_root, HEAD, "compose.yaml").is_file():
        return None
    found = {"error": None, "port": None, "proxies": {}, "applications": {}}
    try:
        token = Path(data_root, "secrets", TOKEN).read_text(encoding="utf-8").strip()
        found.update(_asked(_port(containers), token))
    except (RayError, _NobodyToAskError) as error:
        found["error"] = str(error)
    except KeyError as error:
        found["error"] = f"the cluster's head answers otherwise than Ray 2.60: found no {error}, expected it"
    except Exception as error:  # http.client's among them, which is imported where it is asked
        found["error"] = f"the cluster's head does not answer: {type(error).__name__}: {error}"
    return found


def _port(containers):
    """Return the dashboard's port."""
    running = [one for one in containers if one.get("state") == "running"]
    if not running:
        raise _NobodyToAskError("the cluster's head does not run")
    first = running[0]["labels"].get("onprem-llm.ports", "").partition("-")[0]
    if not first.isdigit():
        raise _NobodyToAskError("the head's container does not name its ports: onprem-llm cluster up")
    return int(first) + DASHBOARD


def _asked(port, token):
    return serve_said(RayApi(port, token, TIME_LIMIT).ask("GET", APPLICATIONS))
