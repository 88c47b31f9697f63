"""Which systems rehearsal hosts can have (`lab up --os`), as data. Not in `lab`: that loads docker's SDK."""

from dataclasses import dataclass
from typing import Literal

# A small server's packages. python3-apt: a standard Debian has it, and Ansible's apt module wants it.
_APT_BASE = (
    "ca-certificates", "curl", "dbus", "iproute2", "iputils-ping", "kmod", "openssh-server", "procps", "python3",
    "python3-apt", "sudo", "systemd", "systemd-sysv",
)  # fmt: skip
_DNF_BASE = (
    "bash", "ca-certificates", "coreutils", "curl-minimal", "dbus", "dnf", "dnf-plugins-core", "glibc-langpack-en",
    "hostname", "iproute", "iputils", "kmod", "openssh-server", "passwd", "procps-ng", "python3", "rocky-release",
    "shadow-utils", "sudo", "systemd",
)  # fmt: skip
# What bootstrap installs beside the engine, wherever that comes from.
_BESIDE = ("iperf3", "nftables", "openssl", "rsync")

# Folders on a real file system: an overlay cannot lie on the container's own, and weights should not pass through one.
_VOLUMES = ("/var/lib/docker", "/srv")


@dataclass(frozen=True)
class System:
    """A system that hosts can have; `suite` as its mirror calls the release.

    `ready`: what bootstrap installs out of its own packages (roles/container_engine), which `--ready` hosts have and
    nothing else of bootstrap; none where these have no engine that bootstrap takes.
    """

    name: str
    title: str
    suite: str
    keyring: str
    key_package: str
    base: tuple[str, ...] = _APT_BASE
    ready: tuple[str, ...] = ()
    components: str = "main"
    volumes: tuple[str, ...] = _VOLUMES
    family: Literal["apt", "dnf"] = "apt"

    @property
    def id(self) -> str:
        """Its name in os-release."""
        return self.name.partition("-")[0]

    @property
    def mirror_variable(self) -> str:
        """What names a mirror in the environment."""
        return f"ONPREM_LLM_{self.id.upper()}_MIRROR"

    @property
    def key_variable(self) -> str:
        """What names the file of the mirror's keys in the environment."""
        return f"ONPREM_LLM_{self.id.upper()}_KEY"


_DEBIAN = ("/usr/share/keyrings/debian-archive-keyring.gpg", "debian-archive-keyring")
_UBUNTU = ("/usr/share/keyrings/ubuntu-archive-keyring.gpg", "ubuntu-keyring")
_ROCKY = ("/etc/pki/rpm-gpg/RPM-GPG-KEY-Rocky-9", "rocky-gpg-keys")
_ALL = (
    System("debian-13", "Debian 13", "trixie", *_DEBIAN, ready=("docker.io", "docker-cli", "docker-compose", *_BESIDE)),
    System("debian-12", "Debian 12", "bookworm", *_DEBIAN),
    # apt is not among the packages that Ubuntu requires.
    System(
        "ubuntu-24.04", "Ubuntu 24.04", "noble", *_UBUNTU, base=("apt", *_APT_BASE, "ubuntu-keyring"),
        ready=("docker.io", "docker-compose-v2", *_BESIDE), components="main restricted universe multiverse",
        volumes=(*_VOLUMES, "/var/lib/containerd"),  # Docker Engine 29 has its images there
    ),
    System("rocky-9", "Rocky Linux 9", "9", *_ROCKY, base=_DNF_BASE, family="dnf"),
)  # fmt: skip
SYSTEMS = {one.name: one for one in _ALL}
NAMES = tuple(SYSTEMS)
DEFAULT = NAMES[0]
