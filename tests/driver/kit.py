"""A rehearsal host that is not yet, and looks like what a test wants: its PCI bus, its system, its package sources."""

import hashlib
import json
import os
import re
import struct
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
T4, H100, NVSWITCH = ("0x1eb8", "0x030200"), ("0x2330", "0x030200"), ("0x22a3", "0x068000")

PLAY = [{"hosts": "all", "gather_facts": False, "become": True}]


@dataclass
class Host:
    """One host of a lab of its own."""

    folder: Path
    lab: str = field(default_factory=lambda: os.environ.get("ONPREM_LLM_TEST_DRIVER_LAB", "driver"))
    number: int = 1

    @property
    def name(self) -> str:
        return f"{self.lab}-{self.number}"

    @property
    def inventory(self) -> Path:
        return self.folder / "inventory.ini"

    def up(self, *options: str) -> "Host":
        """Make it anew: what a run that was killed left has half a test on it. `options`: of `lab up`."""
        self.down()
        options = options or ("--hosts", "1")
        argv = ["onprem-llm", "lab", "up", "--name", self.lab, *options, "--inventory", str(self.inventory)]
        subprocess.run(argv, check=True)
        return self

    def down(self) -> None:
        subprocess.run(["onprem-llm", "lab", "down", "--name", self.lab], check=True)

    def run(self, script: str, check: bool = True) -> str:
        """Run a script as root, and return what it printed."""
        argv = ["docker", "exec", self.name, "bash", "-ec", script]
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        assert not check or done.returncode == 0, f"{script}\n{done.stdout[-2000:]}{done.stderr[-2000:]}"
        return done.stdout.strip()

    def send(self, source: Path, target: str) -> None:
        subprocess.run(["docker", "cp", str(source), f"{self.name}:{target}"], check=True, capture_output=True)

    def has_on_its_bus(self, *cards: tuple[str, str], buses: Sequence[int] = range(0x17, 0x20)) -> None:
        """Mount a PCI bus with these cards: (device id, class)."""
        lines = ["rm -rf /run/bus; mkdir -p /run/bus"]
        for number, (device, kind) in zip(buses, cards, strict=False):
            place = f"/run/bus/0000:{number:02x}:00.0"
            lines.append(
                f"mkdir {place}; cd {place}; echo 0x10de > vendor; echo {device} > device; echo {kind} > class"
            )
        self.run("\n".join([*lines, "mount --bind /run/bus /sys/bus/pci/devices"]))

    def has_nouveau(self) -> None:
        """Show the kernel's modules with nouveau among them."""
        self.run("mkdir -p /run/modules/nouveau; mount --bind /run/modules /sys/module")

    def looks_like(self, **release: str) -> None:
        """Give it another /etc/os-release."""
        text = "".join(f'{key}="{value}"\n' for key, value in release.items())
        self.run(f"rm -f /etc/os-release; cat > /etc/os-release <<'E'\n{text}E")

    def role(
        self, *options: str, name: str = "nvidia_driver", entry: str = "main", register: str = "", **variables: Any
    ) -> dict[str, Any]:
        """Run a role, and return its module's answer (or what the expression REGISTER says).

        An error of the role is in `failure`.
        """
        play = self.folder / "play.json"
        block = [{"ansible.builtin.import_role": {"name": name, "tasks_from": entry}, "vars": variables}]
        say = [{"ansible.builtin.debug": {"msg": f"ANSWER {{{{ {register or f'{name}_result'} | to_json }}}}"}}]
        tasks = [{"block": block, "always": say}]
        play.write_text(json.dumps([{**PLAY[0], "hosts": self.name, "tasks": tasks}]))
        argv = ["ansible-playbook", "-i", str(self.inventory), str(play), *options]
        environment = {**os.environ, "ANSIBLE_ROLES_PATH": str(ROOT / "roles")}
        done = subprocess.run(argv, capture_output=True, text=True, check=False, env=environment)
        said = re.search(r'"msg": ("ANSWER .*")$', done.stdout, re.MULTILINE)
        assert said is not None, done.stdout[-3000:] + done.stderr[-1000:]
        found: dict[str, Any] = json.loads(json.loads(said.group(1)).partition(" ")[2])
        return found

    def started(self) -> str:
        """Say when it booted last."""
        argv = ["docker", "inspect", "--format", "{{.State.StartedAt}}", self.name]
        return subprocess.run(argv, capture_output=True, text=True, check=True).stdout.strip()


def module_file(version: str, license_: str) -> bytes:
    """Return a kernel module that has nothing but what modinfo reads: an ELF file with a section .modinfo."""
    info = b"".join(f"{key}={value}\0".encode() for key, value in (("version", version), ("license", license_)))
    names = b"\0.modinfo\0.shstrtab\0"
    start = 64 + len(info) + len(names)
    header = (
        b"\x7fELF\x02\x01\x01" + bytes(9) + struct.pack("<HHIQQQIHHHHHH", 1, 62, 1, 0, 0, start, 0, 64, 0, 0, 64, 3, 2)
    )
    sections = bytes(64)
    sections += struct.pack("<IIQQQQIIQQ", 1, 1, 2, 0, 64, len(info), 0, 0, 1, 0)
    sections += struct.pack("<IIQQQQIIQQ", 10, 3, 0, 0, 64 + len(info), len(names), 0, 0, 1, 0)
    return header + info + names + sections


@dataclass
class AptRepository:
    """Stand-in packages for apt, made from nothing."""

    folder: Path
    index: list[str] = field(default_factory=list)

    def add(
        self, name: str, version: str, depends: str = "", files: dict[str, bytes] | None = None, postinst: str = ""
    ) -> None:
        """Make a package; `files`: path on the host to content, programs where they are below /usr/bin."""
        work = self.folder / "work" / f"{name}_{version}"
        (work / "DEBIAN").mkdir(parents=True)
        for path, data in (files or {}).items():
            target = work / path.lstrip("/")
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(data)
            target.chmod(0o755 if path.startswith("/usr/bin/") else 0o644)
        control = f"Package: {name}\nVersion: {version}\nArchitecture: all\nMaintainer: us <us@example.com>\n"
        control += f"Depends: {depends}\n" if depends else ""
        control += f"Description: stand-in for {name}\n"
        (work / "DEBIAN/control").write_text(control)
        if postinst:
            (work / "DEBIAN/postinst").write_text(postinst)
            (work / "DEBIAN/postinst").chmod(0o755)
        path = self.folder / f"{name}_{version}.deb"
        subprocess.run(["dpkg-deb", "--build", "--root-owner-group", str(work), str(path)], check=True, stdout=-3)
        data = path.read_bytes()
        sums = f"Size: {len(data)}\nSHA256: {hashlib.sha256(data).hexdigest()}\n"
        self.index.append(f"{control}Filename: ./{path.name}\n{sums}")

    def give(self, host: Host) -> None:
        """Make it the only source of a host."""
        (self.folder / "Packages").write_text("\n".join(self.index))
        host.run("rm -rf /srv/standin /etc/apt/sources.list.d/*")
        host.send(self.folder, "/srv/standin")
        host.run(
            "echo 'deb [trusted=yes] file:/srv/standin ./' > /etc/apt/sources.list.d/standin.list; apt-get update -q"
        )
