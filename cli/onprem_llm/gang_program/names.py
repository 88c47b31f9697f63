"""Names for the addresses of the ranks, as torch meets them: so that no resolver is asked for them.

Docker writes the ranks' names into the container's /etc/hosts (extra_hosts). Torch's sockets are IPv6's: it meets
10.0.0.2 as ::ffff:10.0.0.2, which older C libraries find there under no other spelling, and docker takes that one
out where IPv6 is off.
"""

from __future__ import annotations

import contextlib
import ipaddress
from pathlib import Path

HOSTS = Path("/etc/hosts")


def add_mapped(path: Path = HOSTS) -> None:
    """Write each IPv4 address a second time, as IPv6 has it; where that may not be written, things stay as they are."""
    with contextlib.suppress(OSError, UnicodeDecodeError):
        known = path.read_text(encoding="utf-8")
        # address, names; a line of a comment alone has neither
        found = [words for line in known.splitlines() if (words := line.partition("#")[0].split())]
        there = {address for address, *_ in found}
        mapped = [(f"::ffff:{address}", *names) for address, *names in found if names and _is_another_hosts(address)]
        added = "".join(f"{' '.join(line)}\n" for line in mapped if line[0] not in there)
        if added:
            with path.open("a", encoding="utf-8") as stream:
                stream.write(added if known.endswith("\n") else f"\n{added}")


def _is_another_hosts(address: str) -> bool:
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return False
    return found.version == 4 and not found.is_loopback
