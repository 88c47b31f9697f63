"""Another driver over hosts that serve: nobody notices, a bad host stays out of rotation, Ctrl-C says what it leaves.

What a run has left is taken up by the next: it waits for what goes on on the host, and lets in what is drained.

Packages, and that a module is loaded, are stand-ins (tests/driver/fleet.py); drain, gateway and replicas are real.
"""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.driver.fleet import NEW, OLD, PACKAGES, REJECTED, archive, knows, loaded, packages
from tests.driver.kit import H100, Host
from tests.load.rehearsal import until
from tests.load.served import Served

from onprem_llm.lab.gpu.stand_in import BUSES, DEFAULT_DRIVER, DRIVERS_PATH, MODPROBE_PATH

COMMAND = ("bootstrap", "inventory.ini", "--yes", "--upgrade-driver")
# What Ansible's module says of itself on the host as it begins.
BEGUN = "journalctl --identifier ansible-nvidia_driver_upgrade --since -2min"
# Dpkg's lock is in other hands for as long as the upgrade is interrupted; apt waits five minutes for it.
HOLD = """\
touch /run/held
setsid python3 -c 'import fcntl, os, time
file = open("/var/lib/dpkg/lock-frontend", "w")
fcntl.lockf(file, fcntl.LOCK_EX)
end = time.time() + 600
while os.path.exists("/run/held") and time.time() < end:
    time.sleep(1)' > /dev/null 2>&1 & sleep 1
"""
AWAY = "mkdir -p /srv/sources; mv /etc/apt/sources.list.d/* /srv/sources/ 2>/dev/null || true"
BACK = f"""\
set +e
rm -f /run/held
apt-mark unhold {" ".join(PACKAGES)} > /dev/null
dpkg --purge --force-depends {" ".join(PACKAGES)} nvidia-container-toolkit > /dev/null 2>&1
modprobe -r nvidia; umount /proc/driver /sys/bus/pci/devices
mv /etc/onprem-llm-lab/gpus.json.unloaded /etc/onprem-llm-lab/gpus.json
sed -i 's/"driver_version": "[^"]*"/"driver_version": "{DEFAULT_DRIVER}"/' /etc/onprem-llm-lab/gpus.json
systemd-tmpfiles --create /etc/tmpfiles.d/onprem-llm-lab-gpus.conf
rm -rf {MODPROBE_PATH} {DRIVERS_PATH} /etc/apt/sources.list.d/* /srv/standin
mv /srv/sources/* /etc/apt/sources.list.d/
exit 0
"""


@pytest.fixture(scope="module")
def fleet(stub: Served, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Host]]:
    """The two hosts of the replicas, the gateway's first, with driver 550, and 580 in their sources."""
    lab = stub.rehearsal.lab
    hosts = [Host(stub.site.folder, lab.name, number) for number in (1, 2)]
    try:
        for host in hosts:
            kernel = host.run("uname -r")
            host.has_on_its_bus(H100, H100, buses=BUSES)
            knows(host, tmp_path_factory.mktemp("lab"), {OLD: "", NEW: ""})
            host.run(AWAY)
            archive(tmp_path_factory.mktemp("old"), kernel, OLD).give(host)
            assert host.role()["failure"] == ""
            archive(tmp_path_factory.mktemp("both"), kernel, OLD, NEW).give(host)
        yield hosts
    finally:
        for host in hosts:
            host.run(BACK)
            stub.site.run("host", "undrain", host.name, "--yes", code=None)


def what_happened(stub: Served, since: int) -> list[str]:
    """Return the events from a number on, the oldest first, each as `action host`."""
    events = stub.site.json("events", "--last", "1000")["events"]
    return [f"{one['action']} {one['message']}" for one in events[since:]]


def upgrade(stub: Served, version: str, *options: str, code: int = 0) -> subprocess.CompletedProcess[str]:
    return stub.site.run(*COMMAND, version, *options, code=code, timeout=1200)


def test_a_bad_host_stays_out_of_rotation_and_the_next_run_goes_on_there(
    stub: Served, fleet: list[Host], tmp_path: Path
) -> None:
    gateway, second = fleet
    knows(second, tmp_path, {OLD: "", NEW: REJECTED})
    with stub.load() as load:
        done = upgrade(stub, "580", code=5)
        assert f"{second.name} is drained, and gets no requests. Not touched: {gateway.name}." in done.stderr
        assert f"onprem-llm host undrain {second.name}" in done.stderr
        assert len(stub.up()) == 1
        assert (loaded(gateway), loaded(second)) == (OLD, "")
        knows(second, tmp_path, {OLD: "", NEW: ""})
        assert f"{second.name} is drained (driver upgrade), by " in stub.site.run("status").stderr
        assert f"Let in again: {second.name}." in upgrade(stub, "580", "--limit", second.name).stdout
        stub.in_rotation(2)
    load.assert_all_good(200)
    assert (loaded(gateway), loaded(second)) == (OLD, NEW)
    event = stub.site.json("events", "--last", "3")["events"][0]
    assert event["message"].startswith(
        f"{second.name}: {OLD} -> {NEW} did not come to its end: driver {NEW} is installed"
    )
    assert event["message"].endswith("; it is drained")


def begun(stub: Served, version: str, said: Path) -> subprocess.Popen[bytes]:
    """Start an upgrade that says what it says into a file."""
    # In the background of a script Ctrl-C is ignored, and by what is started then, too.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    program = str(Path(sys.executable).with_name("onprem-llm"))
    with said.open("w") as file:
        return subprocess.Popen([program, *COMMAND, version], cwd=stub.site.folder, stdin=subprocess.DEVNULL,
                                stdout=file, stderr=file)  # fmt: skip


def test_ctrl_c_in_a_hosts_turn_says_what_it_leaves_and_the_next_run_takes_that_up(
    stub: Served, fleet: list[Host], tmp_path: Path
) -> None:
    gateway = fleet[0]
    gateway.run(HOLD)
    with stub.load() as load:
        process = begun(stub, "580", tmp_path / "first")
        until(lambda: f"version={NEW}" in gateway.run(BEGUN, check=False), 300, "the module is at work")
        assert len(stub.up()) == 1
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=120) == 130
        said = (tmp_path / "first").read_text()
        assert f"Stopped in the middle of {gateway.name}. {gateway.name} is drained, and gets no requests." in said
        assert f"What was begun on {gateway.name} may go on there to its end" in said
        assert f"onprem-llm host undrain {gateway.name}" in said
        check = upgrade(stub, "580", "--check", code=6).stderr
        assert f"somebody is at work on the driver of {gateway.name}; nothing was changed" in check
        assert f"(driver {NEW}, for " in check
        goes_on = tmp_path / "second"
        process = begun(stub, "580", goes_on)
        until(
            lambda: f"{gateway.name}: what an earlier run began there goes on" in goes_on.read_text(), 300, "it waits"
        )
        assert (loaded(gateway), len(stub.up())) == (OLD, 1)
        gateway.run("rm /run/held")
        assert process.wait(timeout=1200) == 0, goes_on.read_text()
        assert f"Let in again: {gateway.name}." in goes_on.read_text()
        stub.in_rotation(2)
    load.assert_all_good(200)
    assert [loaded(host) for host in fleet] == [NEW, NEW]


def test_nobody_notices(stub: Served, fleet: list[Host]) -> None:
    gateway, second = (host.name for host in fleet)
    before = len(stub.site.json("events", "--last", "1000")["events"])
    with stub.load() as load, stub.watched() as seen:
        found = json.loads(upgrade(stub, OLD, "--json").stdout)
    load.assert_all_good(200)
    assert {one["host"]: one["state"] for one in found["hosts"]} == {second: "upgraded", gateway: "upgraded"}
    assert found["canary"]["host"] == second
    assert min(seen) == 1  # drained in turn, and never both
    assert [(loaded(host), packages(host)) for host in fleet] == [(OLD, {f"{OLD}-1"})] * 2
    assert what_happened(stub, before) == [
        f"host drain {second}", f"host undrain {second}", f"driver {second}: {NEW} -> {OLD}",
        f"host drain {gateway}", f"host undrain {gateway}", f"driver {gateway}: {NEW} -> {OLD}",
    ]  # fmt: skip
    stub.in_rotation(2)
