"""Up, status and down. `up` brings a lab to what was asked, from nothing or from wherever an earlier one stopped."""

import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from onprem_llm.errors import OnpremError, UsageError
from onprem_llm.lab import closed, engine, hosts, image, inventory, network, state
from onprem_llm.lab.gpu import stand_in
from onprem_llm.lab.mirrors import NOTHING, Given
from onprem_llm.lab.state import Lab


@dataclass(frozen=True)
class Wanted:
    """What `lab up` was asked for."""

    name: str
    hosts: int
    gpus: tuple[str, ...]
    os: str
    ready: bool
    inventory: Path
    driver: str | None
    memory: str | None
    closed: bool = False
    hostnames: tuple[str, ...] = ()
    given: Given = NOTHING


@engine.explained
def up(wanted: Wanted, say: Callable[[str], None]) -> tuple[Lab, bool]:
    """Make the lab, or finish one that was begun, or start what is switched off; return it and whether it changed."""
    engine.client()
    with state.locked(wanted.name):
        return _up(wanted, say)


def _up(wanted: Wanted, say: Callable[[str], None]) -> tuple[Lab, bool]:
    image.system_of(wanted.os, wanted.ready)
    gpus = stand_in.parse_gpus(wanted.gpus, wanted.hosts)
    driver = wanted.driver or stand_in.DEFAULT_DRIVER
    stand_in.cuda_version(driver)
    known = state.load(wanted.name)
    inventory.check_writable(wanted.inventory, wanted.name)
    if known is None:
        # What needs a mirror comes before there is a lab: without one nothing is left behind.
        image.ensure(wanted.os, wanted.ready, say, wanted.given)
    with state.alone("choosing"):
        lab = _described(wanted, driver, gpus, known)
        if known is None:
            _refuse_strangers(lab)
            state.save(lab)
    changed = _make_hosts(lab, wanted.given, gpus, say)
    state.write_known_hosts(lab, {host.name: hosts.public_keys(host) for host in lab.hosts})
    written = inventory.write(lab)
    return lab, changed or written


def _described(wanted: Wanted, driver: str, gpus: list[stand_in.GpuSet | None], known: Lab | None) -> Lab:
    """Return the lab to be; OnpremError if one of that name exists and is another."""
    subnet = known.subnet if known else network.free_subnet([*network.taken_subnets(), *state.subnets()])
    lab = Lab(
        name=wanted.name,
        os=wanted.os,
        ready=wanted.ready,
        driver=driver,
        memory=wanted.memory,
        subnet=subnet,
        inventory=str(wanted.inventory),
        hosts=state.plan_hosts(wanted.name, subnet, [str(one) if one else None for one in gpus], wanted.hostnames),
        closed=wanted.closed,
    )
    if known is not None and known != lab:
        raise OnpremError(
            f"lab {wanted.name} exists and is another: " + "; ".join(_differences(known, lab)),
            hint=f"onprem-llm lab down --name {wanted.name}, or another --name",
        )
    return lab


def _differences(known: Lab, lab: Lab) -> list[str]:
    found = []
    for name in ("os", "ready", "driver", "memory", "inventory", "closed"):
        before, after = getattr(known, name), getattr(lab, name)
        if before != after:
            found.append(f"{name} is {before}, asked for {after}")
    if len(known.hosts) != len(lab.hosts):
        found.append(f"it has {len(known.hosts)} hosts, asked for {len(lab.hosts)}")
    for before, after in zip(known.hosts, lab.hosts, strict=False):
        if before.gpus != after.gpus:
            found.append(f"{before.name} has {before.gpus or 'no GPU'}, asked for {after.gpus or 'none'}")
        if before.hostname != after.hostname:
            found.append(f"{before.name} calls itself {before.hostname}, asked for {after.hostname}")
    return found


def _refuse_strangers(lab: Lab) -> None:
    """A lab without state here was made by somebody else, or its state was lost."""
    found = engine.client().containers.list(all=True, ignore_removed=True, filters=engine.labelled(lab.name))
    names = sorted(str(one.name) for one in found)
    taken = names or [host.name for host in lab.hosts if engine.find(host.name)]
    if taken:
        what = "belong to a lab of that name" if names else "have the names that its hosts would get"
        raise OnpremError(
            f"lab {lab.name} has no state in {lab.folder}, but containers {what}: {', '.join(taken)}",
            hint=f"onprem-llm lab down --name {lab.name} removes a lab; or choose another --name",
        )


def _make_hosts(lab: Lab, given: Given, gpus: Sequence[stand_in.GpuSet | None], say: Callable[[str], None]) -> bool:
    key = state.ensure_key(lab)
    missing = [host for host in lab.hosts if engine.find(host.name) is None]
    if missing:
        name = image.ensure(lab.os, lab.ready, say, given)
        network.ensure(lab.network, lab.name, lab.subnet, internal=lab.closed)
        for host in missing:
            hosts.create(lab, host, name)
            if lab.closed:
                closed.furnish(lab, host)
    stopped = [host for host in lab.hosts if not hosts.is_running(host)]
    for host in stopped:
        say(f"starting {host.name} ({host.address})")
        hosts.start(host)
    for host, one in zip(lab.hosts, gpus, strict=True):
        hosts.wait_booted(host)
        hosts.furnish(host, key, one, lab.driver)
    return bool(stopped)


@engine.explained
def status(name: str) -> list[dict[str, object]]:
    """Return a line a host: its address, state, systemd's and docker's word, GPUs."""
    lab = state.require(name)
    return [hosts.describe(host) for host in lab.hosts]


@engine.explained
def down(name: str, say: Callable[[str], None]) -> bool:
    """Remove all that carries the lab's label, its state and its inventory; return whether there was anything."""
    existed = state.folder(name).exists()
    engine.client()
    with state.locked(name):
        return _down(name, say) or existed


def _down(name: str, say: Callable[[str], None]) -> bool:
    client, ours = engine.client(), engine.labelled(name)
    containers = client.containers.list(all=True, ignore_removed=True, filters=ours)
    networks, volumes = client.networks.list(filters=ours), client.volumes.list(filters=ours)
    if containers:
        say("removing " + ", ".join(sorted(str(one.name) for one in containers)))
    for container in containers:
        container.remove(force=True, v=True)
    for made in networks:
        made.remove()
    for volume in volumes:
        volume.remove()
    lab = _load_or_none(name)
    if lab is not None:
        inventory.remove(lab)
    state.remove(name)
    return bool(containers or networks or volumes)


def _load_or_none(name: str) -> Lab | None:
    # `down` is what a broken lab.json is told to use, so it cannot stumble over it.
    try:
        return state.load(name)
    except OnpremError:
        return None


def ssh_argv(name: str, host: str, command: Sequence[str]) -> list[str]:
    """Return the ssh command line for a host of the lab."""
    lab = state.require(name)
    one = lab.host(host)
    options = [
        "-i", str(lab.key), "-o", "IdentitiesOnly=yes", "-o", f'UserKnownHostsFile="{lab.known_hosts}"',
        "-o", "StrictHostKeyChecking=yes",
    ]  # fmt: skip
    return ["ssh", *options, f"{state.USER}@{one.address}", *(["--", *command] if command else [])]


@engine.explained
def exec_root(name: str, host: str, argv: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """Run `argv` as root on a host of lab `name` through the engine: it works with sshd or the network gone."""
    return engine.exec_root(state.require(name).host(host).name, argv)


@engine.explained
def attempts(name: str) -> dict[str, closed.Recorded]:
    """Return host, as it calls itself → what its recorder wrote; UsageError for a lab that has a way out."""
    lab = state.require(name)
    if not lab.closed:
        raise UsageError(f"lab {name} has a way out, so nothing is recorded", hint="make one with: lab up --closed")
    called = [host.hostname or host.name for host in lab.hosts]
    if len(set(called)) < len(called):  # earlier versions made such labs
        called = [host.name for host in lab.hosts]
    return {name: closed.recorded(host) for name, host in zip(called, lab.hosts, strict=True)}
