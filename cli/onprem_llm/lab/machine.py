"""What rehearsal hosts share with the machine that they run on, beside its mirror: private CAs and an apt proxy."""

import re
import subprocess
from pathlib import Path

from onprem_llm.lab_systems import System

CA_FOLDER = "usr/local/share/ca-certificates"
# Where the machine may have its own, by the family of its system; and where each family of hosts wants them.
CA_FOLDERS = {"apt": CA_FOLDER, "dnf": "etc/pki/ca-trust/source/anchors"}

# What decides whether apt reaches the mirror; the machine's other apt settings are its own affair.
APT_SETTINGS = re.compile(r"^Acquire::(http|https)::Proxy\b|^Acquire::Check-(Valid-Until|Date)\b")


def shared_files(system: System) -> dict[str, bytes]:
    """Return path in the host → content: the machine's private CAs and the apt settings that reach the mirror."""
    own = [path for folder in CA_FOLDERS.values() for path in sorted(Path("/", folder).glob("*.crt"))]
    files = {f"{CA_FOLDERS[system.family]}/{path.name}": path.read_bytes() for path in own}
    settings = "".join(f"{line}\n" for line in apt_settings()) if system.family == "apt" else ""
    if settings:
        files["etc/apt/apt.conf.d/80onprem-llm-lab"] = settings.encode()
    return files


def apt_settings() -> list[str]:
    """Return the settings of this machine's apt that hosts need, a line each."""
    try:
        done = subprocess.run(["apt-config", "dump"], capture_output=True, text=True, check=False, timeout=30)
    except FileNotFoundError:
        return []
    return [line for line in done.stdout.splitlines() if APT_SETTINGS.match(line)]
