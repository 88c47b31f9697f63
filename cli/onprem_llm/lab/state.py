"""What the control host keeps of a lab: lab.json, the lab's ssh key, the hosts' public keys. One 0700 folder a lab."""

import contextlib
import fcntl
import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TextIO

from onprem_llm.errors import OnpremError, RefusedError, UsageError
from onprem_llm.lab import network

USER = "ops"


@dataclass(frozen=True)
class Host:
    """One rehearsal host; `gpus` as `--gpus` takes it, None without; it calls itself `hostname`, else `name`."""

    name: str
    address: str
    gpus: str | None
    hostname: str | None = None


@dataclass(frozen=True)
class Lab:
    """A lab as `lab up` was asked for it, and what was chosen for it. `memory` as docker takes it ("8g").

    `closed`: no way leads out of it, and what tries is recorded (closed.py).
    """

    name: str
    os: str
    ready: bool
    driver: str
    memory: str | None
    subnet: str
    inventory: str
    hosts: list[Host] = field(default_factory=list)
    closed: bool = False

    @property
    def network(self) -> str:
        """Return the name of the lab's docker network."""
        return f"onprem-llm-lab-{self.name}"

    @property
    def folder(self) -> Path:
        """Return the lab's state folder."""
        return folder(self.name)

    @property
    def key(self) -> Path:
        """Return the lab's private ssh key."""
        return self.folder / "id_ed25519"

    @property
    def known_hosts(self) -> Path:
        """Return the file with the hosts' public keys."""
        return self.folder / "known_hosts"

    def host(self, name: str) -> Host:
        """Return the host `name`; its number alone will do ("1")."""
        for host in self.hosts:
            if name in (host.name, host.name.rpartition("-")[2]):
                return host
        names = ", ".join(host.name for host in self.hosts)
        raise UsageError(f"lab {self.name} has no host {name!r}", hint=f"its hosts: {names}")


def root() -> Path:
    """Return the folder of all labs' state."""
    base = os.environ.get("XDG_STATE_HOME") or str(Path.home() / ".local" / "state")
    return Path(base) / "onprem-llm" / "lab"


def folder(name: str) -> Path:
    """Return the state folder of lab `name`; the name must be fit for host names."""
    if re.fullmatch(r"[a-z][a-z0-9-]{0,29}", name) is None or name.endswith("-"):
        raise UsageError(f"--name {name}: not a lab's name", hint="small letters, digits and -, at most 30, e.g. lab2")
    return root() / name


def plan_hosts(name: str, subnet: str, gpus: list[str | None], hostnames: Sequence[str] = ()) -> list[Host]:
    """Return the hosts of a lab: names and addresses from their numbers."""
    called = [*hostnames, *[None] * (len(gpus) - len(hostnames))]
    return [
        Host(f"{name}-{number}", network.address(subnet, number), one, hostname)
        for number, (one, hostname) in enumerate(zip(gpus, called, strict=True), start=1)
    ]


def load(name: str) -> Lab | None:
    """Return the lab that was asked for under `name`; None if there is none."""
    path = folder(name) / "lab.json"
    if not path.is_file():
        return None
    try:
        values = json.loads(path.read_text("utf-8"))
        return Lab(**{**values, "hosts": [Host(**host) for host in values["hosts"]]})
    except (ValueError, TypeError, KeyError) as error:
        hint = f"remove the lab and make it anew: onprem-llm lab down --name {name}"
        raise OnpremError(f"{path}: not a lab's description ({error})", hint=hint) from None


def require(name: str) -> Lab:
    """Return the lab `name`; OnpremError if it was never made here."""
    lab = load(name)
    if lab is None:
        known = ", ".join(names()) or "none"
        raise OnpremError(f"there is no lab {name!r} (labs here: {known})", hint="make it: onprem-llm lab up")
    return lab


def names() -> list[str]:
    """Return the names of the labs that have state here."""
    return sorted(path.parent.name for path in root().glob("*/lab.json"))


def subnets() -> list[str]:
    """Return the networks of all labs here, those too that are about to be made."""
    found = []
    for name in names():
        with contextlib.suppress(OnpremError):  # A damaged one is told of where it is asked for.
            found.append(require(name).subnet)
    return found


@contextlib.contextmanager
def alone(doing: str) -> Iterator[None]:
    """Wait until nobody else here does this: choosing a network, which docker knows of much later, or building."""
    root().mkdir(mode=0o700, parents=True, exist_ok=True)
    with (root() / doing).open("w", encoding="utf-8") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def locked(name: str) -> Iterator[None]:
    """Hold the lab's lock: two commands do not make or remove one lab at a time; RefusedError if it is held."""
    stream = _take_lock(folder(name))
    if stream is None:
        raise RefusedError(
            f"another `lab up` or `lab down` of lab {name} is at work", hint="run this again when it is done"
        )
    with stream:
        try:
            yield
        finally:
            if not (folder(name) / "lab.json").is_file():
                remove(name)  # nothing came of it: leave no empty folder


def _take_lock(place: Path) -> TextIO | None:
    """Return the locked file; None if somebody else holds it, or removed it with the lab a moment ago."""
    for path in (root(), place):
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        stream = (place / "lock").open("w", encoding="utf-8")
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        stream.close()
        return None
    # A lock on a file that `lab down` has removed keeps nobody out.
    if os.fstat(stream.fileno()).st_nlink == 0:
        stream.close()
        return None
    return stream


def save(lab: Lab) -> None:
    """Write lab.json; whole or not at all."""
    for path in (root(), lab.folder):
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    draft = lab.folder / "lab.json.new"
    draft.write_text(json.dumps(asdict(lab), indent=2) + "\n", "utf-8")
    draft.replace(lab.folder / "lab.json")


def ensure_key(lab: Lab) -> str:
    """Return the lab's public ssh key; the pair is made at the first call."""
    public = lab.key.with_suffix(".pub")
    if not public.is_file():
        lab.key.unlink(missing_ok=True)
        comment = f"onprem-llm-lab-{lab.name}"
        command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", str(lab.key)]
        try:
            subprocess.run(command, capture_output=True, text=True, check=True, timeout=30)
        except FileNotFoundError:
            raise OnpremError("there is no ssh-keygen", hint="apt-get install openssh-client") from None
        except subprocess.CalledProcessError as error:
            raise OnpremError("ssh-keygen failed", details=error.stderr) from None
    return public.read_text("utf-8").strip()


def write_known_hosts(lab: Lab, keys: dict[str, list[str]]) -> None:
    """Write the hosts' public keys (host name → `type key`), under their addresses and their names."""
    lines = [f"{host.address},{host.name} {key}\n" for host in lab.hosts for key in keys[host.name]]
    lab.known_hosts.write_text("".join(lines), "utf-8")


def remove(name: str) -> None:
    """Remove the lab's state folder, and the folders above it that are ours and empty."""
    shutil.rmtree(folder(name), ignore_errors=True)
    for path in (root(), root().parent):
        if path.is_dir() and not any(path.iterdir()):
            path.rmdir()
