"""An apt of our own, for another release than this machine's: its own folders, nothing installed."""

import functools
import os
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from onprem_llm.caches import cache_folder
from onprem_llm.errors import InvalidError, OnpremError
from onprem_llm.locking.blobs import hint_for
from onprem_llm.private_files import write_private

# What of this machine's apt configuration says how it reaches the outside.
_REACHING = re.compile(r"^Acquire::(https?|ftp|Retries|ForceIPv[46])(::[A-Za-z0-9._:-]*)? .*;$")
_FOLDERS = (
    "etc/apt/apt.conf.d", "etc/apt/preferences.d", "etc/apt/trusted.gpg.d", "var/lib/apt/lists/partial",
    "var/lib/dpkg", "var/cache/apt/archives/partial",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class AptRoot:
    """apt for one release and architecture. Everything that it writes is below `folder`."""

    folder: Path
    name: str  # for people: debian 13 (amd64)

    def prepare(self, architecture: str, sources: str) -> None:
        """Write its configuration; OnpremError where this machine has no apt."""
        if shutil.which("apt-get") is None:
            raise self._no_apt("apt-get")
        for name in _FOLDERS:
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        # An empty status: what this machine has installed does not count.
        (self.folder / "var/lib/dpkg/status").write_text("")
        configuration = _configuration(self.folder, architecture)
        # A proxy's address may have a password in it, and so may this machine's own mirrors.
        for name, text in (("apt.conf", configuration), ("sources.list.d/onprem-llm.sources", sources)):
            path = self.folder / "etc/apt" / name
            path.parent.mkdir(exist_ok=True)
            path.unlink(missing_ok=True)
            write_private(path, text)

    def update(self) -> None:
        """Fetch the package lists: those that have not changed are not sent again."""
        self.run(["apt-get", "update", "--quiet", "--error-on=any"], f"the package lists of {self.name}")

    def try_run(self, argv: Sequence[str], cwd: Path) -> bool:
        """Run an apt command, and tell whether it went well."""
        return self._run(argv, cwd).returncode == 0

    def run(self, argv: Sequence[str], what: str, cwd: Path | None = None) -> str:
        """Run an apt command in this root and return what it printed; InvalidError with apt's own complaints."""
        done = self._run(argv, cwd)
        if done.returncode != 0:
            lines = [line for line in (done.stdout + done.stderr).splitlines() if line.startswith(("E:", "W:", "Err:"))]
            raise InvalidError(
                f"{what}: apt-get says",
                details="\n".join(f"  {line}" for line in lines[-8:]) or done.stderr[-600:],
                hint=hint_for(
                    done.stdout + done.stderr,
                    "see that this machine reaches its package mirror, or name another: --package-mirror NAME=URL",
                ),
            )
        return done.stdout

    def _run(self, argv: Sequence[str], cwd: Path | None) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "APT_CONFIG": str(self.folder / "etc/apt/apt.conf"), "LC_ALL": "C"}
        try:
            return subprocess.run(argv, env=environment, cwd=cwd, capture_output=True, text=True, check=False)
        except FileNotFoundError:
            raise self._no_apt(argv[0]) from None

    def _no_apt(self, tool: str) -> OnpremError:
        return OnpremError(
            f"{tool} is not on this machine, and only apt says what the packages of {self.name} need",
            hint="make the lock on a Debian or Ubuntu machine (a container will do), or leave packages out: "
            "--skip packages",
        )


def apt_root(os_id: str, release: str, architecture: str) -> AptRoot:
    """Return the root for a release; it stays in the cache."""
    place = cache_folder() / "apt" / f"{os_id}-{release}-{architecture}"
    return AptRoot(place, f"{os_id} {release} ({architecture})")


@functools.cache
def own_mirrors(os_id: str) -> Mapping[str, str]:
    """Return the mirrors that this machine's own apt uses, by the names of onprem_llm_site.package_mirrors.

    Nothing for a release of another system: its archive is elsewhere.
    """
    own = _os_release()
    if own.get("ID") != os_id or shutil.which("apt-get") is None:
        return {}
    argv = ["apt-get", "indextargets", "--format", "$(TARGET_OF) $(RELEASE) $(REPO_URI) $(COMPONENT)"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    codename, found = own.get("VERSION_CODENAME", ""), dict[str, str]()
    for line in done.stdout.splitlines():
        kind, suite, address, component = [*line.split(" "), "", "", ""][:4]
        if kind != "deb" or component != "main":
            continue
        if suite == codename:
            found.setdefault(os_id, address.rstrip("/"))
        elif os_id == "debian" and suite == f"{codename}-security":
            found.setdefault("debian_security", address.rstrip("/"))
    return found


def _os_release() -> Mapping[str, str]:
    import platform

    try:
        return platform.freedesktop_os_release()
    except OSError:
        return {}


def _configuration(folder: Path, architecture: str) -> str:
    """Return apt.conf. In a file, not on a command line, which everybody sees."""
    own = subprocess.run(["apt-config", "dump"], capture_output=True, text=True, check=False).stdout
    reaching = [line for line in own.splitlines() if _REACHING.match(line)]
    return "\n".join([
        f'Dir "{folder}";',
        f'Dir::State::status "{folder}/var/lib/dpkg/status";',
        'Dir::Bin::methods "/usr/lib/apt/methods";',
        f'APT::Architecture "{architecture}";',
        f'APT::Architectures {{ "{architecture}"; }};',
        'Acquire::Languages "none";',
        # Passwords of mirrors are where this machine's own apt has them.
        'Dir::Etc::netrc "/etc/apt/auth.conf";',
        'Dir::Etc::netrcparts "/etc/apt/auth.conf.d";',
        # Else --print-uris has MD5 sums, or none.
        'Acquire::ForceHash "SHA256";',
        # Our folders are not the user _apt's.
        'APT::Sandbox::User "";' if os.geteuid() else 'APT::Sandbox::User "root";',
        'APT::Install-Recommends "false";',
        *reaching,
        "",
    ])  # fmt: skip
