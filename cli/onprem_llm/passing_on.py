"""Carry out a fan_out step: measure the lines, and have the hosts pass weights or an image's blobs on.

Weights that did not get to a host are sent from here. Blobs are left to the next step, which looks for them anyway.
"""

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from onprem_llm.connection import Connection
from onprem_llm.errors import OnpremError
from onprem_llm.json_values import is_list, is_mapping
from onprem_llm.output import Progress, human_bytes, note
from onprem_llm.planning.chain_order import chain_order
from onprem_llm.planning.types import Step
from onprem_llm.runner import RunResult, raise_for_failures, run
from onprem_llm.seam import order_file, write_orders
from onprem_llm.weights.manifest import Manifest, read_manifest
from onprem_llm.weights.store import MANIFEST
from onprem_llm.weights.sums import CHUNK

PIECE = 256 * 1024  # bytes; docs/adr/0010-a-chain-of-our-own.md
GIVE_UP = 45  # seconds without any host that serves, after which one is sent to from here
PLAYBOOK = "fan_out.yml"


@dataclass
class PassingOn:
    """One step: `folder` is the run's, `number` the step's. `bandwidth` in bytes a second that a host sends at most."""

    step: Step
    folder: Path
    number: int
    connection: Connection
    progress: Progress
    bandwidth: int | None = None
    run_name: str = field(default_factory=lambda: secrets.token_hex(4))
    secret: str = field(default_factory=lambda: secrets.token_hex(32))

    def run(self) -> None:
        """Bring them to every host of the step; OnpremError where weights could not be brought to one at all.

        The same for a step that was edited and lacks something, before any host is asked.
        """
        self._check()
        hosts = list(self.step.orders)
        try:
            # One that has everything and one that has not: there is nothing to put in order.
            rates = _told(self._play("measure", hosts), "rate") if len(hosts) > 2 else {}
            ordered = chain_order(hosts, {host: float(rate) for host, rate in rates.items() if rate})
            done = self._play("pass", ordered)
        except BaseException:
            # Ctrl-C too: nothing goes on by itself on the hosts.
            self._stop(hosts)
            raise
        for line in came_again(done):
            note(line)
        states, reasons = _told(done, "state"), _told(done, "error")
        left = [host for host in ordered[1:] if states.get(host) != "done"]
        if left:
            reasons = {**{failure.host: failure.message for failure in done.failures}, **_texts(reasons)}
            self._tell(left, reasons, ordered[0])
            if not self._of_images:
                self._send(left, ordered)

    def _check(self) -> None:
        of_images, hosts = self._of_images, self.step.orders.keys()
        for order in self.step.orders.values():
            chain = _having(order.get("chain"), "port", int)
            folder = order.get("blobs") if of_images else _weights(order)
            for file in _list(_having(folder, "path", str).get("files")):
                _having(_having(_having(file, "path", str), "size", int), "sha256", str)
            if not of_images:
                _list(_having(folder, "source", str).get("send"))
            if hosts - dict(_pairs(chain.get("members"))).keys():
                raise _not_whole()

    def _play(self, what: str, members: Sequence[str]) -> RunResult:
        orders = {host: self._order(host, what, members) for host in members}
        path = write_orders(self.folder, self.number, orders)
        return run(
            PLAYBOOK, self.connection, hosts=list(members), progress=self.progress,
            title="Measure the lines between the hosts" if what == "measure" else self.step.title,
            variables={"onprem_llm_order_file": str(path)}, secrets={"onprem_llm_secrets": {"fan_out": self.secret}},
        )  # fmt: skip

    def _order(self, host: str, what: str, members: Sequence[str]) -> dict[str, object]:
        order = self.step.orders[host]
        chain = _mapping(order["chain"])
        addresses = dict(_pairs(chain["members"]))
        folder, files = self._files(order)
        program = {
            "schema": 1, "run": self.run_name, "rank": list(members).index(host), "port": chain["port"],
            "hosts": [{"name": member, "address": addresses[member]} for member in members],
            "folder": folder, "files": files, "piece": PIECE, "chunk_size": CHUNK,
            "bandwidth": self.bandwidth if what == "pass" else None, "give_up": GIVE_UP,
        }  # fmt: skip
        stamped = {} if self._of_images else {
            "weights": [_weights(order)], "verified": [f"{folder}/{file['path']}" for file in files],
        }  # fmt: skip
        return {"do": what, "run": self.run_name, "program": program, **stamped}

    @property
    def _of_images(self) -> bool:
        return any("blobs" in order for order in self.step.orders.values())

    def _files(self, order: Mapping[str, object]) -> tuple[object, list[Mapping[str, object]]]:
        """Return the folder that a host's files lie in, and the files of the run: the same ones on every host."""
        if self._of_images:
            blobs = _mapping(order["blobs"])
            return blobs["path"], [_mapping(file) for file in _list(blobs["files"])]
        weights = _weights(order)
        sums = _chunk_sums(str(weights["source"]))
        wanted = {path for other in self.step.orders.values() for path in _list(_weights(other)["send"])}
        files = [file for file in map(_mapping, _list(weights["files"])) if file["path"] in wanted]
        return weights["path"], [{**file, "chunks": list(sums.get(str(file["sha256"]), ()))} for file in files]

    def _stop(self, hosts: Sequence[str]) -> None:
        path = write_orders(self.folder, self.number, {host: {"do": "stop", "run": self.run_name} for host in hosts})
        stopped = run(PLAYBOOK, self.connection, hosts=list(hosts), variables={"onprem_llm_order_file": str(path)})
        for failure in stopped.failures:
            note(f"{failure.host}: what passes files on could not be stopped; it ends by itself within minutes")

    def _tell(self, hosts: Sequence[str], reasons: Mapping[str, object], source: str) -> None:
        what = "what it lacks of the image comes" if self._of_images else "the weights come"
        # What keeps the first one from giving it is why nobody has it.
        first = f"{source}: {reasons[source]}" if source in reasons else None
        for host in hosts:
            note(f"{host}: {what} from this machine instead: {first or reasons.get(host) or 'nobody passed it on'}")

    def _send(self, hosts: Sequence[str], everyone: Sequence[str]) -> None:
        """Send from here what the chain did not bring; what is there already is not sent again.

        Of `everyone`, those that have the weights are named as well where a host gets none.
        """
        orders = {host: {"images": [], "weights": [_weights(self.step.orders[host])]} for host in hosts}
        write_orders(self.folder, self.number, orders)
        result = run(
            "stage.yml", self.connection, hosts=list(hosts), progress=self.progress, title="Bring the weights",
            variables={
                "onprem_llm_seam": str(self.folder),
                "onprem_llm_order_file": str(order_file(self.folder, self.number)),
            },
        )  # fmt: skip
        raise_for_failures(replace(result, hosts=tuple(everyone)), doing="bringing weights")


def _chunk_sums(source: str) -> dict[str, tuple[str, ...]]:
    """Return the chunks' sums of pulled weights by the file's; a folder that nobody pulled has none."""
    path = Path(source).parent / MANIFEST
    manifest: Manifest | None = None
    if path.is_file():
        try:
            manifest = read_manifest(path)
        except OnpremError:  # somebody else's manifest.json: then files are checked whole
            manifest = None
    if manifest is None or manifest.chunk_size != CHUNK:
        return {}
    return {file.sha256: file.chunks for file in manifest.files}


def came_again(result: RunResult) -> list[str]:
    """Name the hosts to which far more came than they lacked, and all that can be why."""
    totals = _told(result, "total")
    lost, damaged, lies = (_told(result, what) for what in ("lost", "again", "lies"))
    return [
        f"{host}: {human_bytes(came)} came for {human_bytes(totals[host])}: lines lost in between: "
        f"{lost.get(host) or 0}; pieces that came damaged: {damaged.get(host) or 0}; "
        f"files or parts of 64 MiB that came whole and wrong: {lies.get(host) or 0}"
        for host, came in _told(result, "received").items()
        if came and totals.get(host) and came > 1.2 * totals[host]
    ]


def _told(result: RunResult, what: str) -> dict[str, Any]:
    """Return what each host's part said under a name."""
    return {host: _mapping(values.get("fan_out", {})).get(what) for host, values in result.returned.items()}


def _texts(values: Mapping[str, object]) -> dict[str, object]:
    return {host: value for host, value in values.items() if value}


def _weights(order: Mapping[str, object]) -> Mapping[str, object]:
    found = _list(order.get("weights"))
    if len(found) != 1:
        raise _not_whole()
    return _mapping(found[0])


def _pairs(members: object) -> list[tuple[str, str]]:
    found = [_list(member) for member in _list(members)]
    if any(len(member) != 2 for member in found):
        raise _not_whole()
    return [(str(name), str(address)) for name, address in found]


def _having(value: object, key: str, kind: type) -> Mapping[str, object]:
    """Return a mapping that has something of this kind at a key."""
    found = _mapping(value)
    if not isinstance(found.get(key), kind):
        raise _not_whole()
    return found


def _mapping(value: object) -> Mapping[str, object]:
    if not is_mapping(value):
        raise _not_whole()
    return value


def _list(value: object) -> Sequence[Any]:
    if not is_list(value):
        raise _not_whole()
    return value


def _not_whole() -> OnpremError:
    return OnpremError("this plan's fan_out step is not whole", hint="make the plan again")
