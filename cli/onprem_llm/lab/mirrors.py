"""Where a system's packages come from: a mirror that was named, or that of the machine's own apt; and its keys."""

import base64
import os
import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from onprem_llm.errors import OnpremError, UsageError
from onprem_llm.lab_systems import System
from onprem_llm.spec.fields import SECRET_VALUE, web_address

ARMOUR = "-----BEGIN PGP PUBLIC KEY BLOCK-----"


@dataclass(frozen=True)
class Mirror:
    """A mirror's address, that of Debian's security updates, who named it, and its keys where others were given."""

    main: str
    security: str
    named_by: str
    key: bytes | None = None


@dataclass(frozen=True)
class Given:
    """What a person says of the mirror on the command line; the environment says it otherwise."""

    mirror: str | None = None
    key: Path | None = None


NOTHING = Given()


def find_mirror(system: System, given: Given = NOTHING, etc_apt: Path = Path("/etc/apt")) -> Mirror:
    """Return the mirror to make hosts of a system from. OnpremError says what was looked for, and how to name one."""
    named_by, main = "--mirror", given.mirror
    if not main:
        named_by, main = system.mirror_variable, os.environ.get(system.mirror_variable)
    if main:
        address = _checked(main, named_by)
        security = _security(address) if system.id == "debian" else address
        return Mirror(address, security, named_by, _key(system, given))
    found = _own(system, etc_apt) if system.family == "apt" else None
    if found is None:
        raise OnpremError(
            f"{system.name}: this machine knows no mirror of {system.title}: found none in {etc_apt}, nor in "
            f"{system.mirror_variable}, nor --mirror",
            hint=how_to_name(system),
        )
    return Mirror(*found, str(etc_apt), _key(system, given))


def how_to_name(system: System) -> str:
    """Say how another mirror is named."""
    folder = {"debian": "debian", "ubuntu": "ubuntu"}.get(system.id, f"{system.id} (with {system.suite}/BaseOS in it)")
    return f"name one: lab up --os {system.name} --mirror URL, or {system.mirror_variable}=http://MIRROR/{folder}"


def is_known(system: System) -> bool:
    """Tell whether hosts of a system can be made here without a word of a person."""
    try:
        find_mirror(system)
    except OnpremError:
        return False
    return True


def _checked(address: str, named_by: str) -> str:
    if SECRET_VALUE.search(address):
        raise UsageError(
            f"{named_by}: found a password in the address, expected none: it would stay in the hosts' image",
            hint="name a mirror that asks for no password",
        )
    try:
        return web_address(address).rstrip("/")
    except ValueError as error:
        raise UsageError(f"{named_by}: {error}", hint="for example: http://mirror.example/debian") from None


def _key(system: System, given: Given) -> bytes | None:
    """Return the given keys; None where the system's own are on this machine, or will be on its hosts."""
    path = given.key or (Path(os.environ[system.key_variable]) if os.environ.get(system.key_variable) else None)
    if path is None:
        if Path(system.keyring).is_file():
            return None
        raise OnpremError(
            f"{system.name}: {system.keyring} is not on this machine, expected the keys that {system.title} signs with",
            hint=f"install {system.key_package}, or name their file: --mirror-key FILE, or {system.key_variable}=FILE",
        )
    try:
        return path.read_bytes()
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}", hint=f"name the file of {system.title}'s keys") from None


def armoured(key: bytes) -> str:
    """Return keys as text, as apt has them in a source."""
    if key.lstrip().startswith(ARMOUR.encode()):
        return key.decode("ascii", "replace").strip()
    lines = textwrap.wrap(base64.b64encode(key).decode(), 64)
    return "\n".join([ARMOUR, "", *lines, ARMOUR.replace("BEGIN", "END")])


def apt_sources(system: System, mirror: Mirror) -> str:
    """Return the hosts' apt sources, in apt's newer format; keys that were given stand in them."""
    signed_by = system.keyring
    if mirror.key is not None:
        signed_by = "\n" + "\n".join(f" {line.strip() or '.'}" for line in armoured(mirror.key).splitlines())

    def stanza(uri: str, suites: str) -> str:
        head = f"Types: deb\nURIs: {uri}\nSuites: {suites}\nComponents: {system.components}\n"
        return f"{head}Signed-By:{signed_by if mirror.key is not None else f' {signed_by}'}\n"

    suites = f"{system.suite} {system.suite}-updates"
    return stanza(mirror.main, suites) + "\n" + stanza(mirror.security, f"{system.suite}-security")


def _security(main: str) -> str:
    return re.sub(r"/debian$", "/debian-security", main)


def _own(system: System, etc_apt: Path) -> tuple[str, str] | None:
    """Return (archive, security updates) of a system as the machine's own apt has them."""
    entries = [(uri.rstrip("/"), suite) for uri, suite in _sources(etc_apt) if f"/{system.id}" in uri]
    # Vendors' archives end in /debian too; only Debian's own has <codename>-updates and <codename>-security.
    main = next((uri for uri, suite in entries if suite.endswith("-updates")), None)
    main = main or next((uri for uri, _ in entries if uri.endswith(f"/{system.id}")), None)
    if main is None:
        return None
    security = next((uri for uri, suite in entries if suite.endswith("-security")), None)
    return main, security or (_security(main) if system.id == "debian" else main)


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
