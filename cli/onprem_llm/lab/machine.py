"""What rehearsal hosts share with the machine that they run on: its Debian mirror, private CAs and apt proxy."""

import os
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from onprem_llm.errors import OnpremError

SUITE = "trixie"
CA_FOLDER = "usr/local/share/ca-certificates"
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"

# What decides whether apt reaches the mirror; the machine's other apt settings are its own affair.
APT_SETTINGS = re.compile(r"^Acquire::(http|https)::Proxy\b|^Acquire::Check-(Valid-Until|Date)\b")


@dataclass(frozen=True)
class Mirror:
    """Where Debian's packages come from."""

    main: str
    security: str


def find_mirror(etc_apt: Path = Path("/etc/apt")) -> Mirror:
    """Return the Debian mirror in the machine's own apt sources; ONPREM_LLM_DEBIAN_MIRROR names another."""
    named = os.environ.get("ONPREM_LLM_DEBIAN_MIRROR")
    if named:
        return Mirror(named, re.sub(r"/debian/?$", "/debian-security", named))
    entries = list(_sources(etc_apt))
    # Vendors' archives end in /debian too; only Debian's own has <codename>-updates and <codename>-security.
    main = next((uri for uri, suite in entries if suite.endswith("-updates") and "/debian" in uri), None)
    main = main or next((uri for uri, suite in entries if uri.rstrip("/").endswith("/debian")), None)
    security = next((uri for uri, suite in entries if suite.endswith("-security") and "/debian" in uri), None)
    if main is None:
        raise OnpremError(
            f"{etc_apt}: no Debian mirror in the apt sources of this machine, and the hosts are Debian 13",
            hint="ONPREM_LLM_DEBIAN_MIRROR=http://MIRROR/debian onprem-llm lab up …",
        )
    return Mirror(main, security or re.sub(r"/debian/?$", "/debian-security", main))


def _sources(etc_apt: Path) -> Iterator[tuple[str, str]]:
    """Yield (URI, suite) of every archive of binary packages with a component `main`, from both of apt's formats."""
    folder = etc_apt / "sources.list.d"
    for path in [etc_apt / "sources.list", *sorted(folder.glob("*.list"))]:
        for line in path.read_text("utf-8").splitlines() if path.is_file() else []:
            found = re.match(r"\s*deb\s+(?:\[[^\]]*\]\s+)?(\S+)\s+(\S+)\s+(.*)", line)
            if found and "main" in found[3].split():
                yield _resolved(found[1]), found[2]
    for path in sorted(folder.glob("*.sources")):
        for stanza in re.split(r"\n\s*\n", path.read_text("utf-8")):
            fields = dict(re.findall(r"^(\w[\w-]*):[ \t]*(.*)$", stanza, re.MULTILINE))
            if fields.get("Enabled") == "no" or "deb" not in fields.get("Types", "").split():
                continue
            if "main" not in fields.get("Components", "").split():
                continue
            for uri in fields.get("URIs", "").split():
                yield from ((_resolved(uri), suite) for suite in fields.get("Suites", "").split())


def _resolved(uri: str) -> str:
    """Return the first mirror of a `mirror+file:` list, as cloud images have it; any other URI as it is."""
    if not uri.startswith("mirror+file:"):
        return uri
    path = Path(re.sub(r"^mirror\+file:/+", "/", uri))
    lines = path.read_text("utf-8").split() if path.is_file() else []
    return lines[0] if lines else uri


def sources_text(mirror: Mirror) -> str:
    """Return the hosts' apt sources, in apt's newer format."""

    def stanza(uri: str, suites: str) -> str:
        return f"Types: deb\nURIs: {uri}\nSuites: {suites}\nComponents: main\nSigned-By: {KEYRING}\n"

    return stanza(mirror.main, f"{SUITE} {SUITE}-updates") + "\n" + stanza(mirror.security, f"{SUITE}-security")


def shared_files() -> dict[str, bytes]:
    """Return path in the host → content: the machine's private CAs and the apt settings that reach the mirror."""
    files = {f"{CA_FOLDER}/{path.name}": path.read_bytes() for path in sorted(Path("/", CA_FOLDER).glob("*.crt"))}
    settings = "".join(f"{line}\n" for line in _apt_settings())
    if settings:
        files["etc/apt/apt.conf.d/80onprem-llm-lab"] = settings.encode()
    return files


def _apt_settings() -> list[str]:
    try:
        done = subprocess.run(["apt-config", "dump"], capture_output=True, text=True, check=False, timeout=30)
    except FileNotFoundError:
        return []
    return [line for line in done.stdout.splitlines() if APT_SETTINGS.match(line)]
