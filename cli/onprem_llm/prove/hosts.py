"""The rehearsal's hosts: made, reached, watched, and gone at the end."""

import os
import platform
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from onprem_llm.errors import OnpremError, RefusedError
from onprem_llm.lab import closed, engine, inventory, lifecycle, state
from onprem_llm.lab.attempts import Attempt, group
from onprem_llm.lab.gpu import stand_in
from onprem_llm.lab.mirrors import is_known
from onprem_llm.lab.state import Lab
from onprem_llm.lab_systems import DEFAULT, SYSTEMS
from onprem_llm.prove.likeness import Likeness, Machine
from onprem_llm.prove.places import FORMER, hold, where

RECEIVED = "cat /sys/class/net/eth0/statistics/rx_bytes"


def machine() -> Machine:
    """Say what hosts can be made here."""
    gpus: dict[str, tuple[str, int]] = {}
    for model, known in stand_in.models().items():
        gpus[model] = (str(known["name"]), int(str(known["memory_mib"])))
    systems = [one for one in SYSTEMS.values() if one.family == "apt" and (one.name == DEFAULT or is_known(one))]
    ready = [one.name for one in systems if one.ready]
    return Machine([one.name for one in systems], gpus, platform.machine(), os.uname().release, ready)


class Hosts:
    """The hosts of one rehearsal; names are those of the inventory."""

    def __init__(self, lab: Lab, likeness: Likeness) -> None:
        """Take a lab that is up."""
        self.lab = lab
        self._hosts = {like.name: host for like, host in zip(likeness.hosts, lab.hosts, strict=True)}

    @property
    def reach(self) -> dict[str, dict[str, str]]:
        """Return how Ansible reaches each host."""
        common = inventory.connection(self.lab)
        return {name: {"ansible_host": host.address, **common} for name, host in self._hosts.items()}

    @engine.explained
    def probe(self) -> dict[str, str | None]:
        """Try to get out of each host; return why its recorder cannot be believed, None where it saw us."""
        found: dict[str, str | None] = {}
        for name, host in self._hosts.items():
            try:
                closed.probe(host)
                found[name] = closed.recorded(host).problem
            except OnpremError as error:
                found[name] = error.message
        return found

    @engine.explained
    def attempts(self) -> list[Attempt]:
        """Return what tried to reach the outside up to now."""
        return group({name: closed.recorded(host).attempts for name, host in self._hosts.items()})

    @engine.explained
    def received(self) -> int:
        """Return how many bytes have reached the hosts."""
        texts = [engine.exec_root(host.name, ["sh", "-c", RECEIVED]).stdout for host in self._hosts.values()]
        return sum(int(text) for text in texts if text.strip().isdigit())

    @property
    def addresses(self) -> Mapping[str, str]:
        """Return name → address."""
        return {name: host.address for name, host in self._hosts.items()}


@contextmanager
def held(name: str) -> Iterator[None]:
    """Hold a lab's name for a whole rehearsal; RefusedError: another one has it."""
    state.folder(name)  # refuses what is no name
    with hold(state.root() / f"{name}.rehearsal", f"another rehearsal with the lab {name}", "or take another --name"):
        yield


def own(name: str, folder: Path) -> Lab | None:
    """Return the lab that an earlier rehearsal of the same place left; RefusedError: that name is another lab's."""
    lab = state.load(name)
    if lab is None or (lab.closed and _same_place(Path(lab.inventory), _inventory(name, folder))):
        return lab
    raise RefusedError(
        f"lab {name} exists and is not this rehearsal's: its inventory is {lab.inventory}",
        hint=f"take another --name; or, if nobody needs it: onprem-llm lab down --name {name}",
    )


def _same_place(one: Path, other: Path) -> bool:
    """Say whether two inventories are of one place's rehearsals: the bundle there may have been made anew since.

    What is of a folder as they were once called is nobody's any more: remove_stale removes that, too.
    """
    lies = {where(other.parent), one.parent.name if FORMER.fullmatch(one.parent.name) else None}
    return (one.name, one.parent.parent) == (other.name, other.parent.parent) and where(one.parent) in lies


def _inventory(name: str, folder: Path) -> Path:
    return folder / f"{name}-lab.ini"


def up(name: str, likeness: Likeness, folder: Path, say: Callable[[str], None]) -> Hosts:
    """Make the hosts anew; what an earlier rehearsal left is removed first."""
    down(name, folder, say)
    gpus = tuple(f"host{number}={host.gpus}" for number, host in enumerate(likeness.hosts, 1) if host.gpus)
    wanted = lifecycle.Wanted(
        name, len(likeness.hosts), gpus, likeness.os, likeness.ready, _inventory(name, folder), None, None,
        closed=True, hostnames=tuple(host.hostname for host in likeness.hosts),
    )  # fmt: skip
    lab, _ = lifecycle.up(wanted, say)
    return Hosts(lab, likeness)


def down(name: str, folder: Path, say: Callable[[str], None]) -> None:
    """Remove the hosts; RefusedError where they are not this rehearsal's."""
    # lab.json is there before anything else of a lab: without it there is nothing of ours.
    if own(name, folder) is not None:
        lifecycle.down(name, say)
