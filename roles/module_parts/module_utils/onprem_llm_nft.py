# SPDX-License-Identifier: Apache-2.0
"""An nftables table of our own: the file that nft loads, now and at boot, and a unit that does so before docker.

No other table is read or written.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path

from ansible.module_utils.onprem_llm_write import put

SEARCHED = "/usr/sbin:/usr/bin:/sbin:/bin"
# After nftables.service, whose start empties every table; PartOf brings ours back when somebody restarts it.
UNIT_TEXT = """[Unit]
Description={description}
DefaultDependencies=no
After=local-fs.target nftables.service firewalld.service
Before=docker.service
PartOf=nftables.service
ReloadPropagatedFrom=nftables.service
ConditionPathExists={rules}

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart={nft} -f {rules}
ExecReload={nft} -f {rules}

[Install]
WantedBy=multi-user.target
"""


class FirewallError(Exception):
    """What was found and expected, and what to do; for a person."""


def run(*command):
    """Run a command and return (exit code, what it said)."""
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=30, check=False)
    return done.returncode, done.stdout.decode("utf-8", "replace").strip()


def tool():
    """Return where nft is; FirewallError where it is not, or where the kernel knows no nftables."""
    path = shutil.which("nft", path=SEARCHED)
    if path is None:
        raise FirewallError(
            "found no nft on the host, expected the package nftables, which keeps strangers off the engines' ports. "
            "Run: onprem-llm bootstrap INVENTORY"
        )
    code, said = run(path, "list", "tables")
    if code != 0:
        raise FirewallError(f"`nft list tables` failed: {said}; expected a kernel with nf_tables. Load or build it in.")
    return path


def text_of(path):
    """Return a file's text, or None."""
    try:
        return path.read_text(encoding="utf-8")
    except OSError:
        return None


class Guard:
    """One table with its file and its unit. `table` is family and name, as nft writes them."""

    def __init__(self, table, rules, unit, wanted_by, description):
        """Name them; the paths are Paths, `wanted_by` the link that has the unit start at boot."""
        self.table, self.description = table, description
        self.rules, self.unit, self.wanted_by = rules, unit, wanted_by

    def is_loaded(self, nft):
        """Return whether the kernel has the table."""
        return run(nft, "list", "table", *self.table.split())[0] == 0

    def present(self, text, check_mode):
        """Bring rules, kernel and unit to what is wanted; return whether that changed anything."""
        nft = tool()
        unit = UNIT_TEXT.format(nft=nft, rules=self.rules, description=self.description)
        stale = text_of(self.rules) != text
        load = stale or not self.is_loaded(nft)
        files = {path: wanted for path, wanted in ((self.rules, text), (self.unit, unit)) if text_of(path) != wanted}
        differs = bool(files) or load or not self.wanted_by.is_symlink()
        if check_mode or not differs:
            return differs
        if stale:
            _checked(nft, text)
        for path, wanted in files.items():
            path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            put(path, wanted, 0o644)
        if load:
            code, said = run(nft, "--file", str(self.rules))
            if code != 0:
                raise FirewallError(f"`nft --file {self.rules}` failed: {said}")
        # A link instead of `systemctl enable`, which reloads systemd (NVIDIA/nvidia-container-toolkit#48).
        self.wanted_by.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        if not self.wanted_by.is_symlink():
            self.wanted_by.symlink_to(self.unit)
        # Marks it as started, for PartOf and for people; the rules are loaded already.
        run("systemctl", "start", self.unit.name)
        return True

    def absent(self, check_mode):
        """Remove table, file and unit; return whether there was anything."""
        nft = shutil.which("nft", path=SEARCHED)
        loaded = nft is not None and self.is_loaded(nft)
        files = [path for path in (self.wanted_by, self.unit, self.rules) if path.is_symlink() or path.exists()]
        if check_mode or not (loaded or files):
            return bool(loaded or files)
        run("systemctl", "stop", self.unit.name)
        for path in files:
            path.unlink()
        if loaded:
            code, said = run(nft, "delete", "table", *self.table.split())
            if code != 0:
                raise FirewallError(f"`nft delete table {self.table}` failed: {said}")
        if self.rules.parent.is_dir() and not any(self.rules.parent.iterdir()):
            self.rules.parent.rmdir()
        return True


def guard(name, description):
    """Return the table `inet onprem_llm…` whose file and unit have a name of their own."""
    unit = Path(f"/etc/systemd/system/onprem-llm-{name}.service")
    table = "inet onprem_llm" if name == "firewall" else f"inet onprem_llm_{name.replace('-', '_')}"
    wanted_by = Path("/etc/systemd/system/multi-user.target.wants") / unit.name
    return Guard(table, Path(f"/etc/onprem-llm/{name}.nft"), unit, wanted_by, description)


def _checked(nft, text):
    """Have nft read the rules before they stand anywhere."""
    with tempfile.NamedTemporaryFile("w", suffix=".nft", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        code, said = run(nft, "--check", "--file", file.name)
    if code != 0:
        raise FirewallError(f"nft refuses the rules, and nothing was changed: {said}")
