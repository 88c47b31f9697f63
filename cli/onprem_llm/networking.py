"""Measure the lines between hosts: one look at who they are, one run in which each pair meets, and what came of it."""

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from typing import TYPE_CHECKING

from onprem_llm.checks.network import Document, document_of
from onprem_llm.checks.network_rounds import rounds
from onprem_llm.connection import Connection
from onprem_llm.errors import InvalidError
from onprem_llm.hosts import Current, HostState
from onprem_llm.look import current_of
from onprem_llm.output import Progress, note
from onprem_llm.planning.gang_lines import meeting_of
from onprem_llm.probe_values import mapping
from onprem_llm.run_events import HostFailure, RunResult
from onprem_llm.runner import run
from onprem_llm.seam import run_folder, write_orders
from onprem_llm.spec.site import parse_site

if TYPE_CHECKING:
    from onprem_llm.spec.network_facts import NetworkFacts

PLAYBOOK = "network.yml"
PORTS = range(7570, 7600)  # two of them, free on all hosts, are the run's own; docs/network.md
BEGIN, PATIENCE = 30, 10  # seconds: that a host may take to begin; that one which is silent is waited for
PAIR = 60  # seconds that one pair may take beside its two measurements of bandwidth


@dataclass(frozen=True)
class Measured:
    """What came of it: the document that reports keep, and the hosts that could not be asked.

    `keeper`: the host whose book keeps what is wrong with lines, None where there is no gateway host; `known`: so far.
    """

    document: Document
    failures: tuple[HostFailure, ...] = ()
    keeper: str | None = None
    known: "NetworkFacts | None" = None


def measure(connection: Connection, progress: Progress, *, seconds: int) -> Measured:
    """Measure between each two hosts that answer, `seconds` of bandwidth each way.

    InvalidError where hosts have no addresses at which others reach them. After KeyboardInterrupt nothing is left.
    """
    looked = run("probe.yml", connection, progress=progress, title="Looking at the hosts' addresses and ports")
    current, failures = current_of(looked), tuple(looked.failures)
    hosts = current.hosts
    span = _span(current, connection)
    names = [host.name for host in hosts]
    addresses = {host.name: _address(host) for host in hosts}
    if len(hosts) < 2:
        alone = {name: {"state": "done"} for name in names}
        return Measured(document_of(names, addresses, alone, span), failures)
    check_addresses(hosts)
    task = _Run(connection, progress, secrets.token_hex(4), names)
    result = task.measure(_programs(hosts, span, seconds))
    said = {host: mapping(values.get("network_check")) for host, values in result.returned.items()}
    said |= {one.host: {"state": "failed", "error": one.message} for one in result.failures}
    keeper = current.gateway.name if current.gateway is not None else None
    return Measured(document_of(names, addresses, said, span), (*failures, *result.failures), keeper, current.network)


def keep(
    connection: Connection, measured: Measured, network: "NetworkFacts", progress: Progress
) -> tuple[HostFailure, ...]:
    """Write what is wrong with lines into the gateway's book, for plans; return the host that could not be told.

    Of lines that were not measured now what was known before stays.
    """
    if measured.keeper is None:
        note("Plans are not told of these lines: no gateway host is among the hosts that were looked at.")
        return ()
    # What was measured now counts, whatever the clock of another control host said then.
    lines = {(line.source, line.target): line for one in (measured.known, network) if one for line in one.lines}
    wrong = tuple(lines[way] for way in sorted(lines) if lines[way].problems)
    bad = network.model_copy(update={"lines": wrong})
    with run_folder() as folder:
        orders = {measured.keeper: {"network": bad.model_dump(mode="json")}}
        told = run(
            "network_keep.yml", connection, hosts=[measured.keeper], progress=progress, title="Writing the book",
            variables={"onprem_llm_order_file": str(write_orders(folder, 0, orders))},
        )  # fmt: skip
    return tuple(told.failures)


def _address(host: HostState) -> str:
    """Return where gangs meet this host: what is measured is the network that they will use."""
    return meeting_of(host).address if host.gang_interface else host.cluster_address


def _span(current: Current, connection: Connection) -> tuple[int, int]:
    """Return the first and the last of the engine's own ports."""
    ports = parse_site(current.site_settings(), f"{connection.inventory} (group_vars)").gang_ports
    return ports.first, ports.last


@dataclass(frozen=True)
class _Run:
    connection: Connection
    progress: Progress
    name: str
    hosts: Sequence[str]

    def measure(self, programs: Mapping[str, Document]) -> RunResult:
        try:
            orders = {host: {"do": "measure", "run": self.name, "program": programs[host]} for host in self.hosts}
            title = f"Measuring the lines between {len(self.hosts)} hosts"
            return self._play(orders, self.progress, title, {"network_check": secrets.token_hex(32)})
        except BaseException:
            # Ctrl-C too: no server and no open port stays.
            stopped = self._play({host: {"do": "stop", "run": self.name} for host in self.hosts}, None, "", {})
            for failure in stopped.failures:
                note(f"{failure.host}: what measures there could not be stopped; it ends by itself, with its time")
            raise

    def _play(
        self, orders: Mapping[str, Document], progress: Progress | None, title: str, secret: Mapping[str, str]
    ) -> RunResult:
        with run_folder() as folder:
            variables = {"onprem_llm_order_file": str(write_orders(folder, 0, orders))}
            return run(
                PLAYBOOK, self.connection, hosts=list(self.hosts), progress=progress, title=title,
                variables=variables, secrets={"onprem_llm_secrets": secret} if secret else None,
            )  # fmt: skip


def _programs(hosts: Sequence[HostState], span: tuple[int, int], seconds: int) -> dict[str, Document]:
    """Return each host's order, as roles/network_check/files/network_check/order.py reads it."""
    port, speed_port = _free_ports(hosts)
    partners = rounds(len(hosts))
    # A gang that stands lets its own hosts in alone: that is no fault of a line.
    walled = {port for host in hosts if host.firewall for wall in host.firewall.gangs for port in wall.ports}
    listed = [{"name": host.name, "address": _address(host)} for host in hosts]
    longest = len(partners[0]) * (PAIR + PATIENCE + 2 * seconds) + 2 * BEGIN
    common = {
        "schema": 1, "hosts": listed, "port": port, "speed_port": speed_port, "seconds": seconds, "limit": longest,
        "ports": [port for port in range(span[0], span[1] + 1) if port not in walled],
        "begin": BEGIN, "patience": PATIENCE,
    }  # fmt: skip
    return {host.name: {**common, "rank": rank, "rounds": partners[rank]} for rank, host in enumerate(hosts)}


def _free_ports(hosts: Sequence[HostState]) -> tuple[int, int]:
    used = {one.port for host in hosts for one in host.listeners}
    free = [port for port in PORTS if port not in used]
    if len(free) < 2:
        raise InvalidError(
            f"found something that listens on nearly each of the ports {PORTS[0]} to {PORTS[-1]} of some host, "
            "expected two that are free on all hosts",
            hint="see what does: ss -Htlnp",
        )
    return free[0], free[1]


def check_addresses(hosts: Sequence[HostState]) -> None:
    """Refuse hosts that no other one can reach by the address that is known of them."""
    seen: dict[str, str] = {}
    for host in hosts:
        address = _address(host)
        problem = _problem(address)
        if address in seen:
            problem = f"it is {seen[address]}'s, too"
        if problem:
            raise InvalidError(
                f"{host.name}: found the address {address}, expected one at which the other hosts reach it: {problem}",
                hint=f"set ansible_host of {host.name} to an address of one of its interfaces, or --limit the run",
            )
        seen[address] = host.name


def _problem(address: str) -> str | None:
    if "%" in address:
        return "it is known on that host alone"
    try:
        return "it is loopback" if ip_address(address).is_loopback else None
    except ValueError:
        return "it is a name"
