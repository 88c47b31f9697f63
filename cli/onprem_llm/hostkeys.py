"""Host keys that ssh does not know: shown and confirmed once, added to known_hosts. Checking is never switched off."""

import os
import shlex
import subprocess
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from onprem_llm.output import confirm, note, table_text
from onprem_llm.ssh import Route
from onprem_llm.ssh_config import jumps, settings

# Seconds to wait for a host to offer its key.
PATIENCE = 15
AT_A_TIME = 16


@dataclass(frozen=True)
class Offered:
    """The key that a host offers, beside what known_hosts says of it."""

    host: str
    name: str
    """The name that known_hosts would list: the address, `[address]:port`, or a HostKeyAlias."""
    lines: tuple[str, ...]
    """Lines for known_hosts; empty when the host could not be asked."""
    type: str
    fingerprint: str
    file: Path
    """The known_hosts file that counts for this host."""
    known: tuple[str, ...]
    """Types and fingerprints that known_hosts has for the name."""

    @property
    def trusted(self) -> bool:
        """Whether the offered key is one of the known."""
        return f"{self.type} {self.fingerprint}" in self.known


def settle(routes: Sequence[Route], *, asking: bool) -> tuple[dict[str, str], set[str]]:
    """Show the unknown keys on the way to these hosts and add them once a person agrees.

    Returns host → what is wrong, where a key is still not trusted, and the hosts for which keys were added. A changed
    key is never taken. Jump hosts come first: ssh reads no key behind an unknown one.
    """
    ways = {route.host: unknown_jumps(route) for route in routes}
    wrong, added = _settle_direct(list(dict.fromkeys(jump for jumps in ways.values() for jump in jumps)), asking)
    said = {host: wrong[jump.host] for host, jumps in ways.items() for jump in jumps if jump.host in wrong}
    opened = {host for host, jumps in ways.items() if any(jump.host in added for jump in jumps)}
    own, more = _settle_direct([route for route in routes if route.host not in said], asking)
    return {**said, **own}, opened | more


def _settle_direct(routes: Sequence[Route], asking: bool) -> tuple[dict[str, str], set[str]]:
    said: dict[str, str] = {}
    unknown: list[tuple[Route, Offered]] = []
    with ThreadPoolExecutor(AT_A_TIME) as pool:
        offers = list(pool.map(offer, routes))
    for route, offered in zip(routes, offers, strict=True):
        if not offered.lines:
            said[route.host] = f"Host key verification failed, and the key could not be read: {offered.type}"
        elif offered.known and not offered.trusted:
            said[route.host] = changed_text(offered)
        elif not offered.known:
            unknown.append((route, offered))
    if unknown and asking and _agreed([offered for _, offered in unknown]):
        for _, offered in unknown:
            _append(offered)
        return said, {route.host for route, _ in unknown}
    said.update({route.host: unknown_text(offered, route) for route, offered in unknown})
    return said, set()


def unknown_jumps(route: Route) -> list[Route]:
    """Return the jump hosts of a host whose keys no known_hosts file has: ssh does not get past them."""
    unknown = []
    for jump in jumps(route):
        found = dict(settings(jump))
        if not _lookup(_listed_name(found), found):
            unknown.append(jump)
    return unknown


def unknown_text(offered: Offered, route: Route) -> str:
    """Say which key is unknown, and the command that shows it and asks."""
    # Ours first: for ssh, the first value of an option counts.
    by_hand = shlex.join(["ssh", "-o", "StrictHostKeyChecking=ask", *route.person, *route.options, route.address])
    return (
        f"Host key verification failed: {offered.file} has no key for {offered.name}; it offers "
        f"{offered.type} {offered.fingerprint}. Run the command on a terminal to confirm it, or connect by hand: "
        f"{by_hand}"
    )


def changed_text(offered: Offered) -> str:
    """Say that a key is not the one that is known, with both fingerprints and the remedy."""
    return (
        f"REMOTE HOST IDENTIFICATION HAS CHANGED: {offered.name} offers {offered.type} {offered.fingerprint}, but "
        f"{offered.file} has {', '.join(offered.known)}. If the host was reinstalled, compare the fingerprint on its "
        f"console (ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub), then: "
        f"ssh-keygen -R '{offered.name}' -f {offered.file}"
    )


def offer(route: Route) -> Offered:
    """Read the key that a host offers, through the user's own configuration and jump hosts; we need not get in."""
    found = dict(settings(route))
    file, name = _known_hosts(found), _listed_name(found)
    with TemporaryDirectory(prefix="onprem-llm-") as folder:
        collected = Path(folder, "known_hosts")
        errors = _collect(route, collected)
        text = collected.read_text() if collected.exists() else ""
        shown = _fingerprints(collected) if text else []
    lines = tuple(line for line in text.splitlines() if line.strip())
    kind, fingerprint = shown[-1] if shown else (errors, "")
    known = tuple(f"{its} {print_}" for its, print_ in _lookup(name, found))
    return Offered(route.host, name, lines[-1:], kind, fingerprint, file, known)


def _collect(route: Route, file: Path) -> str:
    """Let ssh write the offered key into a file of its own; return the last line that it says."""
    # Ours first: for ssh, the first value of an option counts. Only this file is asked and written, and only by us.
    words = ["-o", f"UserKnownHostsFile={file}", "-o", "GlobalKnownHostsFile=/dev/null"]
    words += ["-o", "StrictHostKeyChecking=accept-new", "-o", "HashKnownHosts=no", "-o", "UpdateHostKeys=no"]
    words += ["-o", "BatchMode=yes", "-o", "PreferredAuthentications=none", "-o", f"ConnectTimeout={PATIENCE}"]
    command = ["ssh", *words, *route.arguments, "true"]
    environment = {**os.environ, "SSH_ASKPASS_REQUIRE": "never"}
    try:
        tried = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=4 * PATIENCE,
            env=environment, check=False, start_new_session=True,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return f"no answer in {4 * PATIENCE} seconds"
    return (tried.stderr.strip().splitlines() or ["no answer"])[-1]


def _agreed(offers: Sequence[Offered]) -> bool:
    rows = [(offered.host, offered.name, offered.type, offered.fingerprint) for offered in offers]
    note("ssh does not know the keys of these hosts:\n")
    note(table_text(["host", "address", "type", "fingerprint"], rows))
    note("\nCompare them with what the hosts say: ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub")
    which = "this key" if len(offers) == 1 else f"these {len(offers)} keys"
    return confirm(f"Add {which} to {', '.join(sorted({str(o.file) for o in offers}))}?", yes=False)


def _append(offered: Offered) -> None:
    offered.file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    before = offered.file.read_text() if offered.file.exists() else ""
    lines = [line for line in offered.lines if line not in before.splitlines()]
    gap = "" if not before or before.endswith("\n") else "\n"
    with os.fdopen(os.open(offered.file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "a") as file:
        file.write(gap + "".join(f"{line}\n" for line in lines))


def _known_hosts(found: dict[str, str]) -> Path:
    names = found.get("userknownhostsfile", "").split()
    return Path(names[0] if names else "~/.ssh/known_hosts").expanduser()


def _listed_name(found: dict[str, str]) -> str:
    alias = found.get("hostkeyalias")
    if alias and alias != "none":
        return alias
    port = found.get("port", "22")
    return found["hostname"] if port == "22" else f"[{found['hostname']}]:{port}"


def _lookup(name: str, found: dict[str, str]) -> list[tuple[str, str]]:
    """Return the keys that all files that count have for a name: type, fingerprint."""
    keys: list[tuple[str, str]] = []
    for option in ("userknownhostsfile", "globalknownhostsfile"):
        for path in found.get(option, "").split():
            place = Path(path).expanduser()
            if place.is_file():
                command = ["ssh-keygen", "-l", "-F", name, "-f", str(place)]
                shown = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False).stdout
                rows = [line.split() for line in shown.splitlines() if not line.startswith("#")]
                keys += [(words[1], words[2]) for words in rows if len(words) >= 3]
    return keys


def _fingerprints(file: Path) -> list[tuple[str, str]]:
    command = ["ssh-keygen", "-l", "-f", str(file)]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False).stdout
    rows = [line.split() for line in shown.splitlines()]
    return [(words[-1].strip("()"), words[1]) for words in rows if len(words) >= 3]
