"""Facts of made-up hosts, as a facts.json holds them."""

from typing import Any

from onprem_llm.spec.facts import Facts

KERNEL = "6.12.1-amd64"


def host_facts(**change: object) -> dict[str, Any]:
    """Return the facts of a Debian 13 host with no GPU; `change` replaces whole fields, unknown ones too."""
    return {
        "os": {"id": "debian", "version_id": "13", "codename": "trixie"},
        "architecture": "x86_64",
        "kernels": {"running": KERNEL, "installed": [KERNEL]},
        "cpu": {"model": "x", "cores": 8},
        "memory_bytes": 2**36,
        "gpus": [],
        "disks": [],
        "python": "3.13.5",
        "collected_with": "test",
        **change,
    }


def facts_of(**hosts: dict[str, Any]) -> Facts:
    """Return checked facts; each host's are those of host_facts()."""
    return Facts.model_validate({"hosts": hosts})
