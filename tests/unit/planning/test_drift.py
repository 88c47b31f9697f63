"""Hosts that are no longer what a lock was made for."""

from typing import Any

import pytest
from tests.made_facts import facts_of, host_facts

from onprem_llm.planning.drift import drift
from onprem_llm.spec.facts import Facts
from onprem_llm.spec.lock import Lock


def lock(**packages: object) -> Lock:
    release = {"os": "debian", "release": "13", "codename": "trixie", "architecture": "amd64",
               "kernels": ["6.12.1-amd64", "6.12.9-amd64"], "files": []}  # fmt: skip
    return Lock.model_validate({
        "onprem_llm": "1", "platform": "linux/amd64", "deployments": [], "images": [], "weights": [], "wheels": [],
        "packages": [release | packages],
    })  # fmt: skip


def facts(**changes: dict[str, Any]) -> Facts:
    """Return facts of hosts that are as the lock knows them, but for what changed."""
    return facts_of(**{name: host_facts(**change) for name, change in changes.items()})


def test_hosts_as_they_were_are_well() -> None:
    assert drift(lock(), facts(a={}, b={"kernels": {"running": "6.12.9-amd64", "installed": []}}), ("a", "b")) == ()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"kernels": {"running": "6.12.11-amd64", "installed": []}}, "found the kernel 6.12.11-amd64, which runs"),
        (
            {"kernels": {"running": "6.12.1-amd64", "installed": ["6.12.11-amd64"]}},
            "found the kernel 6.12.11-amd64, which is installed: a reboot may choose it, and the lock knows 6",
        ),
        ({"os": {"id": "debian", "version_id": "12", "codename": "bookworm"}}, "found debian 12, and the lock"),
        ({"os": {"id": "ubuntu", "version_id": "13", "codename": "x"}}, "found ubuntu 13"),
        ({"architecture": "aarch64"}, "found linux/arm64, and the lock is for linux/amd64"),
    ],
)  # fmt: skip
def test_what_changed_is_said_with_what_to_do(change: dict[str, object], said: str) -> None:
    (problem,) = drift(lock(), facts(gpu1={}, gpu2=change))
    assert problem.startswith(f"gpu2: {said}")
    assert "collect the facts again" in problem


def test_a_host_without_facts_is_named() -> None:
    assert drift(lock(), facts(a={}), ("a", "b"))[0].startswith("b: it is not in the facts: collect the facts again")


def test_a_lock_without_packages_knows_no_kernels() -> None:
    bare = lock().model_copy(update={"packages": ()})
    assert drift(bare, facts(a={"kernels": {"running": "9", "installed": []}})) == ()
    assert drift(bare, facts(a={"architecture": "aarch64"})) != ()
