"""Free space where projects, weights and docker's images will lie."""

from __future__ import annotations

import os

from ansible.module_utils.host_preflight_findings import GIB, Finding, daemon_settings, judged, nearest_existing


def disk_findings(data_root: str, weights_dir: str, wanted_gib: dict[str, float]) -> list[Finding]:
    """Return one finding a place. Places on one file system are each compared with all that is free there."""
    docker_root = str(daemon_settings().get("data-root", "/var/lib/docker"))
    places = {"data_root": data_root, "weights_dir": weights_dir, "docker_root": docker_root}
    return [_disk(name, path, float(wanted_gib.get(name, 0))) for name, path in places.items()]


def _disk(name: str, path: str, wanted_gib: float) -> Finding:
    state = os.statvfs(nearest_existing(path))
    free_gib = state.f_bavail * state.f_frsize / GIB
    return judged(
        f"disk_{name}",
        free_gib >= wanted_gib,
        f"{free_gib:.1f} GiB free at {path}",
        f"at least {wanted_gib:g} GiB",
        f"Free space there, mount a larger disk at {path}, or change host_preflight_min_free_gib in group_vars.",
    )
