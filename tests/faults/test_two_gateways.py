"""Two gateway hosts with one address: whoever holds it may be killed, stopped or switched off."""

import contextlib
import http.client
import json
import re
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest
from tests.load.driver import Load
from tests.load.rehearsal import GATEWAY, PORT, Rehearsal, until
from tests.load.served import Served, served, stub_text

WITHIN = 3.0  # seconds after which new requests succeed, whatever became of the holder
ADDRESS = "gateway-address-keepalived-1"


@dataclass
class Pair:
    """Two gateways and what is served through their address; the second one's host runs no engine."""

    stub: Served
    hosts: tuple[str, str]
    address: str

    @property
    def rehearsal(self) -> Rehearsal:
        return self.stub.rehearsal

    @property
    def holders(self) -> list[str]:
        """Name the hosts that have the shared address now."""
        lab = self.rehearsal.lab
        shown = {host: lab.exec_root(host, "ip", "-o", "address", check=False) for host in self.hosts}
        return [host for host, text in shown.items() if f" {self.address}/" in text]

    def held_by(self, host: str) -> None:
        """Let a host have the address: keepalived on the other starts anew."""
        other = next(one for one in self.hosts if one != host)
        if self.holders != [host]:
            self.rehearsal.lab.exec_root(other, "docker", "restart", ADDRESS)
            until(lambda: self.holders == [host], 20, f"the address on {host}")
            time.sleep(1)

    @contextlib.contextmanager
    def load(self) -> Iterator[Load]:
        with self.stub.load(url=f"https://{self.address}:{PORT}/v1") as load:
            yield load

    def ask(self, host: str, key: str) -> int | None:
        """Ask the gateway of one host for its models; return the status, None where nobody answers."""
        context = ssl.create_default_context(cadata=self.rehearsal.ca)
        connection = http.client.HTTPSConnection(self.rehearsal.address(host), PORT, timeout=3, context=context)
        with contextlib.closing(connection), contextlib.suppress(OSError, http.client.HTTPException):
            connection.request("GET", "/v1/models", headers={"Authorization": f"Bearer {key}"})
            return connection.getresponse().status
        return None


@pytest.fixture(scope="module")
def pair(rehearsal: Rehearsal) -> Iterator[Pair]:
    """Make the third host a gateway too, and take that back at the end."""
    hosts = (rehearsal.hosts[0], rehearsal.hosts[2])
    address = rehearsal.address(hosts[0]).rpartition(".")[0] + ".100"
    folder = rehearsal.site.folder
    inventory, settings = folder / "inventory.ini", folder / "group_vars" / "all.yml"
    before = {path: path.read_text() for path in (inventory, settings)}
    inventory.write_text(before[inventory] + "\n[gateway]\n" + "".join(f"{host}\n" for host in hosts))
    settings.write_text(before[settings] + f"  gateway: {{address: {address}}}\n")
    try:
        rehearsal.site.run("bootstrap", "inventory.ini", "--yes")
        with served(rehearsal, "stub", stub_text(rehearsal, "stub")) as stub:
            one = Pair(stub, hosts, address)
            until(lambda: len(one.holders) == 1, 20, "one host has the address")
            yield one
    finally:
        for path, text in before.items():
            path.write_text(text)
        rehearsal.lab.exec_root(hosts[1], "systemctl", "disable", "--now", "onprem-llm-keys.service", check=False)
        rehearsal.lab.exec_root(hosts[1], "rm", "-rf", "/var/lib/onprem-llm/second", "/var/lib/onprem-llm/keys")


def taken_over(load: Load, at: float, name: str) -> float:
    """Assert that requests begun WITHIN seconds and later are well; return when the last one was begun that was not."""
    load.wait(lambda load: sum(one.started > at + WITHIN for one in load.records) >= 80, 60, "80 answers after it")
    bad = load.bad()
    gap = max((one.started - at for one in bad), default=0.0)
    print(f"{name}: {len(bad)} of {len(load.records)} requests not good, the last begun after {gap:.2f} s")
    assert gap <= WITHIN, load.report()
    # Those under way when it happened may be cut; nobody else.
    assert all(one.ended >= at for one in bad), load.report()
    return gap


KILLS: dict[str, Callable[[Pair, str], object]] = {
    "killed": lambda pair, host: pair.rehearsal.lab.exec_root(host, "docker", "kill", "-s", "KILL", GATEWAY),
    "stopped": lambda pair, host: pair.rehearsal.lab.exec_root(host, "docker", "stop", "-t", "5", GATEWAY),
    "hung": lambda pair, host: pair.rehearsal.lab.exec_root(host, "pkill", "-STOP", "haproxy"),
}


@pytest.mark.parametrize("how", KILLS)
def test_the_other_takes_over(how: str, pair: Pair) -> None:
    holder, other = pair.hosts
    pair.held_by(holder)
    try:
        with pair.load() as load:
            at = time.time()
            KILLS[how](pair, holder)
            taken_over(load, at, how)
            assert pair.holders == [other]
    finally:
        pair.rehearsal.lab.exec_root(holder, "pkill", "-CONT", "haproxy", check=False)
        pair.rehearsal.lab.exec_root(holder, "docker", "start", GATEWAY)
    # It does not come back by itself: that would cut what goes through the other.
    until(lambda: pair.ask(holder, pair.stub.key) == 200, 30, "the gateway that was away answers")
    time.sleep(3)
    assert pair.holders == [other]


def test_a_host_that_was_off_knows_what_was_revoked_before_it_serves(pair: Pair) -> None:
    other, holder = pair.hosts
    pair.held_by(holder)
    lost, new = (f"{pair.stub.user}-{name}" for name in ("lost", "new"))
    key = pair.rehearsal.key(lost)
    assert pair.ask(holder, key) == 200
    with pair.load() as load:
        at = time.time()
        subprocess.run(["docker", "kill", holder], check=True, capture_output=True, timeout=60)
        taken_over(load, at, "switched off")
    refused = pair.stub.site.run("key", "revoke", lost, code=4)
    assert "--skip-unreachable" in refused.stderr
    pair.stub.site.run("key", "revoke", lost, "--skip-unreachable")
    fresh = pair.rehearsal.key(new, "--skip-unreachable")
    assert (pair.ask(other, key), pair.ask(other, fresh)) == (401, 200)
    subprocess.run(["docker", "start", holder], check=True, capture_output=True, timeout=60)
    seen: list[int | None] = []

    def answers() -> bool:
        seen.append(pair.ask(holder, key))
        return seen[-1] is not None

    until(answers, 120, "the gateway of the host that was off")
    assert seen[-1] == 401, "a revoked key was let in"
    assert pair.ask(holder, fresh) == 200
    pair.stub.site.run("key", "revoke", new)


def test_the_second_host_has_the_whole_book(pair: Pair) -> None:
    site, lab = pair.stub.site, pair.rehearsal.lab
    read = "cd /var/lib/onprem-llm && cat stub/current ca/ca.crt hosts.json events.jsonl 2>/dev/null | sha256sum"
    first, second = (lab.exec_root(host, "sh", "-c", read) for host in pair.hosts)
    assert first == second
    lab.exec_root(pair.hosts[1], "sh", "-c", "echo 9 >/var/lib/onprem-llm/stub/current; "
                  "cp /var/lib/onprem-llm/stub/1.yaml /var/lib/onprem-llm/stub/9.yaml; "
                  "cp /var/lib/onprem-llm/stub/1.json /var/lib/onprem-llm/stub/9.json")  # fmt: skip
    notes = json.loads(site.run("status", "--json").stdout)["notes"]
    assert any(
        re.search(rf"book on {pair.hosts[1]} differs from {pair.hosts[0]}'s, which counts", one) for one in notes
    )
    site.run("deploy", pair.stub.file, "--yes")
    assert pair.rehearsal.revision("stub") == int(
        lab.exec_root(pair.hosts[1], "cat", "/var/lib/onprem-llm/stub/current")
    )
    assert not any("differs" in one for one in json.loads(site.run("status", "--json").stdout)["notes"])
