"""A fleet of two from driver 550 to 580, by the command line: real apt, stand-in packages under the real names.

Both are Debian with NVIDIA's repository. Loading a module is pretended (lab/gpu/modprobe), and what nvidia-smi says.
"""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.driver.fleet import NEW, OLD, PACKAGES, REJECTED, archive, knows, loaded, packages
from tests.driver.kit import H100, Host

from onprem_llm.lab.gpu.stand_in import BUSES


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Host]]:
    """Two hosts whose driver 550 runs, and whose sources have 580 by now."""
    folder = tmp_path_factory.mktemp("fleet")
    first = Host(folder)
    try:
        first.up("--hosts", "2", "--gpus", "2xH100-80GB", "--driver", OLD)
        hosts = [first, Host(folder, first.lab, 2)]
        for host in hosts:
            host.run("command -v modinfo || (apt-get update -q; apt-get install --yes -q kmod)")
            host.has_on_its_bus(H100, H100, buses=BUSES)
            knows(host, folder, {OLD: "", NEW: ""})
            kernel = host.run("uname -r")
            archive(tmp_path_factory.mktemp("old"), kernel, OLD).give(host)
            assert host.role()["failure"] == ""
            assert loaded(host) == OLD
            archive(tmp_path_factory.mktemp("both"), kernel, OLD, NEW, "590.44.01").give(host)
        yield hosts
    finally:
        first.down()


def upgrade(host: Host, version: str, *options: str) -> subprocess.CompletedProcess[str]:
    argv = ["onprem-llm", "bootstrap", str(host.inventory), "--upgrade-driver", version, *options]
    return subprocess.run(argv, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)


def states(done: subprocess.CompletedProcess[str]) -> dict[str, str]:
    document: dict[str, Any] = json.loads(done.stdout)
    return {one["host"]: one["state"] for one in document["hosts"]}


def touched(host: Host) -> str:
    return host.run("stat -c '%n %Y' /var/lib/dpkg/status /var/lib/apt/lists /etc/apt /etc/apt/*.d; apt-mark showhold")


def test_a_check_shows_the_turns_and_touches_nothing(fleet: list[Host]) -> None:
    before = [touched(host) for host in fleet]
    done = upgrade(fleet[0], "580", "--check")
    assert done.returncode == 0, done.stdout + done.stderr
    first, second = (host.name for host in fleet)
    rows = [line.split() for line in done.stdout.splitlines()]
    assert [first, OLD, NEW, "(open", "modules)"] in [row[:5] for row in rows], done.stdout
    assert f"{first} is the canary: nothing serves there" in done.stdout
    assert second in done.stdout
    assert [touched(host) for host in fleet] == before


def test_what_no_source_has_is_refused_with_every_host_named(fleet: list[Host]) -> None:
    done = upgrade(fleet[0], "575", "--yes")
    assert done.returncode == 3, done.stdout + done.stderr
    assert f"driver 575 cannot be brought to {fleet[0].name}, {fleet[1].name}; nothing was changed" in done.stderr
    assert "branch 575 as was asked for" in done.stderr
    assert {loaded(host) for host in fleet} == {OLD}


def test_gpus_in_use_want_a_reboot_which_yes_does_not_allow(fleet: list[Host]) -> None:
    fleet[1].run(
        "setsid sh -c 'exec 3</dev/nvidia0; exec sleep 600' >/dev/null 2>&1 & echo $! > /run/user.pid; sleep 1"
    )
    done = upgrade(fleet[0], "580", "--yes")
    fleet[1].run("kill $(cat /run/user.pid)")
    assert done.returncode == 3, done.stdout + done.stderr
    assert f"{fleet[1].name}: the GPUs are in use by sleep" in done.stderr
    assert {version for host in fleet for version in packages(host)} == {f"{OLD}-1"}


def test_a_bad_canary_and_the_second_host_is_untouched(fleet: list[Host], tmp_path: Path) -> None:
    canary, other = fleet
    knows(canary, tmp_path, {OLD: "", NEW: REJECTED})
    before = touched(other)
    done = upgrade(canary, "580", "--yes", "--json")
    assert done.returncode == 5, done.stdout + done.stderr
    assert states(done) == {canary.name: "failed", other.name: "waiting"}
    assert "driver 580.95.05 is installed and does not load: found Secure Boot refuses the module" in done.stderr
    assert "mokutil --import" in done.stderr
    assert f"Not touched: {other.name}" in done.stderr
    assert "run the same command again" in done.stderr
    assert (touched(other), loaded(other), packages(other)) == (before, OLD, {f"{OLD}-1"})
    assert (loaded(canary), packages(canary)) == ("", {f"{NEW}-1"})
    assert set(PACKAGES) <= set(canary.run("apt-mark showhold").split())


def test_mended_the_same_command_goes_on_there_and_then_with_the_second(fleet: list[Host], tmp_path: Path) -> None:
    canary, other = fleet
    knows(canary, tmp_path, {OLD: "", NEW: ""})
    plan = upgrade(canary, "580", "--check").stdout
    assert f"{canary.name} is the canary: driver {NEW} is there since an earlier run, and does not run" in plan
    done = upgrade(canary, "580", "--yes", "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    assert states(done) == {canary.name: "upgraded", other.name: "upgraded"}
    for host in fleet:
        assert (loaded(host), packages(host)) == (NEW, {f"{NEW}-1"})
        assert set(PACKAGES) <= set(host.run("apt-mark showhold").split())
        assert host.run("nvidia-smi --query-gpu=driver_version --format=csv,noheader").split() == [NEW, NEW]
        assert host.run("ls /etc/apt/preferences.d") == ""


def test_where_all_have_it_nothing_is_done(fleet: list[Host]) -> None:
    before = [touched(host) for host in fleet]
    done = upgrade(fleet[0], "580")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Nothing to do: driver 580 runs wherever it could." in done.stdout
    assert [touched(host) for host in fleet] == before


def test_back_to_an_older_one_on_one_host(fleet: list[Host]) -> None:
    asked = upgrade(fleet[0], OLD, "--limit", fleet[1].name)
    assert asked.returncode == 2
    assert "there is no terminal to ask on" in asked.stderr
    assert loaded(fleet[1]) == NEW
    done = upgrade(fleet[0], OLD, "--limit", fleet[1].name, "--yes")
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{fleet[1].name} goes back, from {NEW} to {OLD}" in done.stdout
    assert [(loaded(host), packages(host)) for host in fleet] == [(NEW, {f"{NEW}-1"}), (OLD, {f"{OLD}-1"})]
