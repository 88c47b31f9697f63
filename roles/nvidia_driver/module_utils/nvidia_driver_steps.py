# SPDX-License-Identifier: Apache-2.0
"""Carrying out what the plan says, one action after the other, and what stands on the host meanwhile."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any, Mapping, Union

from ansible.module_utils import nvidia_driver_look as look
from ansible.module_utils import onprem_llm_record as record
from ansible.module_utils.nvidia_driver_apt import Apt
from ansible.module_utils.nvidia_driver_dnf import Dnf
from ansible.module_utils.nvidia_driver_needs import DriverError
from ansible.module_utils.nvidia_driver_plan import PERSISTENCE, UNITS
from ansible.module_utils.nvidia_driver_reasons import reason
from ansible.module_utils.onprem_llm_apt_get import PackageError
from ansible.module_utils.onprem_llm_command import run
from ansible.module_utils.onprem_llm_write import put

Hands = Union[Apt, Dnf]
NOUVEAU = Path("/etc/modprobe.d/onprem-llm-nouveau.conf")
NOUVEAU_TEXT = """\
# Written by onprem-llm: NVIDIA's driver cannot have GPUs that nouveau has.
blacklist nouveau
options nouveau modeset=0
"""
# Where DKMS keeps the certificate that it signs with: its own default, and Ubuntu's.
KEYS = ("/var/lib/shim-signed/mok/MOK.der", "/var/lib/dkms/mok.pub")
# In the order in which they let go of each other.
MODULES = ("nvidia_uvm", "nvidia_drm", "nvidia_modeset", "nvidia_peermem", "nvidia")
LONG_S = 3600.0  # a module takes minutes to build, on a busy host many
# What both modules are told: which driver is wished for, and where it comes from.
OPTIONS: dict[str, Any] = {
    "kernel_modules": {"type": "str", "choices": ["auto", "open", "proprietary"], "default": "auto"},
    "build": {"type": "str", "choices": ["auto", "dkms", "precompiled"], "default": "auto"},
    "mirrors": {"type": "dict", "default": {}},
    "fingerprints": {"type": "list", "elements": "str", "default": [], "no_log": False},
    "source": {"type": "path"},
    # A proxy's address may hold a password.
    "proxy": {"type": "dict", "no_log": True},
}


def state(hands: Hands) -> dict[str, Any]:
    """Return what `for_packages` compares with: what the host has besides its facts."""
    key = next((path for path in KEYS if Path(path).exists()), KEYS[-1])
    return {
        "installed": hands.installed(),
        "there": hands.there(),
        "held": not hands.unheld(),
        "stream": hands.stream(),
        "nouveau_blocked": NOUVEAU.exists() and NOUVEAU.read_text(encoding="utf-8") == NOUVEAU_TEXT,
        "enabled": {unit: _enabled(unit) for unit in (PERSISTENCE, *UNITS.values())},
        "key": key,
        "enrolled": _enrolled(key),
    }


def _enabled(unit: str) -> str:
    lines = run(["systemctl", "is-enabled", f"{unit}.service"])[1].splitlines()
    return lines[-1].strip() if lines else "unknown"


def _enrolled(key: str) -> bool:
    """Say whether the firmware believes the key; one that is not there yet, or no mokutil, is a no."""
    return "is already enrolled" in run(["mokutil", "--test-key", key])[1]


class Steps:
    """The actions of a plan, by their names."""

    def __init__(self, hands: Hands) -> None:
        """`hands` install packages."""
        self.hands = hands
        self.reboot: list[str] = []  # why a new module could not be loaded now

    def carry_out(self, action: Mapping[str, Any]) -> None:
        """Do one action. PackageError, DriverError, OSError."""
        getattr(self, f"_{action['do']}")(action)

    def _stream(self, action: Mapping[str, Any]) -> None:
        self.hands.set_stream(action["name"])

    def _remove(self, action: Mapping[str, Any]) -> None:
        self.hands.remove(action["names"])

    def _install(self, action: Mapping[str, Any]) -> None:
        try:
            self.hands.install(action["names"], action.get("without", ()))
        except PackageError as problem:
            log = _build_log()
            if not log:
                raise
            raise DriverError(
                f"found that {', '.join(action['names'])} could not be installed, expected modules that can be built. "
                f"DKMS's log says:\n{log}\nMend what it names. If the kernel is newer than this driver knows: choose "
                "other modules (onprem_llm_site.nvidia_driver.kernel_modules), another branch or an older kernel, and "
                "run bootstrap again"
            ) from problem

    def _run_file(self, action: Mapping[str, Any]) -> None:
        options = ["--silent", "--no-questions", "--ui=none", "--dkms", "--no-x-check", "--no-nouveau-check"]
        options += [f"--kernel-name={action['kernel']}", kind_option(action["branch"], action["kind"])]
        record.note_run_file(action["path"])
        code, text = run(["sh", action["path"], *options], LONG_S)
        if code != 0:
            raise DriverError(
                f"{action['path']} failed: {text[-400:]}\nIts own log on the host, /var/log/nvidia-installer.log, says "
                "more. Mend what it names, then run bootstrap again"
            )

    def _block_nouveau(self, _: Mapping[str, Any]) -> None:
        record.note_absent([str(NOUVEAU)], False)
        NOUVEAU.parent.mkdir(exist_ok=True)
        put(NOUVEAU, NOUVEAU_TEXT, 0o644)
        # An early nouveau comes out of the initramfs.
        tools = {"update-initramfs": ["-u", "-k", "all"], "dracut": ["--force", "--regenerate-all"]}
        for tool, options in tools.items():
            if shutil.which(tool):
                run([tool, *options], LONG_S)
                break

    def _build(self, action: Mapping[str, Any]) -> None:
        """Build the modules for a kernel, where the packages' own scripts have not done so. DriverError."""
        kernel, version = action["kernel"], action["version"]
        if look.built(kernel).get("version") == version:
            return
        said = run(["dkms", "autoinstall", "-k", kernel], LONG_S)[1]
        if look.built(kernel).get("version") != version:
            raise DriverError(
                f"found no NVIDIA module {version} for the kernel {kernel} after the installation, expected one. DKMS "
                f"says:\n{said[-400:]}\n{_build_log()}\nMend what it names (often a kernel too new for this driver), "
                "then run bootstrap again"
            )

    def _let_go(self, _: Mapping[str, Any]) -> None:
        self.hands.let_go()

    def _hold(self, _: Mapping[str, Any]) -> None:
        self.hands.hold()

    def _enable(self, action: Mapping[str, Any]) -> None:
        # --no-reload: a reload of systemd can take running containers their devices.
        if _enabled(action["unit"]) == "disabled":
            run(["systemctl", "enable", "--no-reload", f"{action['unit']}.service"])

    def _reload(self, action: Mapping[str, Any]) -> None:
        """Put the module in the place of the loaded one; where that is in use, say so in `reboot`. DriverError."""
        before = _loaded()
        if before is not None and before["version"] != action["version"]:
            for unit in (*UNITS.values(), PERSISTENCE):
                run(["systemctl", "stop", f"{unit}.service"], 300)
            for name in MODULES:
                run(["modprobe", "-r", name], 300)
            if _loaded() is not None:
                self._start_watchers()
                users = ", ".join(look.users()) or "something in the kernel"
                self.reboot.append(f"driver {before['version']} cannot be unloaded: {users} has the GPUs")
                return
        self._load(action)

    def _load(self, action: Mapping[str, Any]) -> None:
        """Load the modules and start what watches over them. DriverError says why they do not load."""
        said = "\n".join(run(["modprobe", name], 300)[1] for name in ("nvidia", "nvidia-uvm"))
        if _loaded() is None:
            why = reason(said, run(["dmesg"])[1][-20000:])
            found = why.found if why else said.strip()[-300:] or "silence"
            remedy = why.remedy if why else "Read `dmesg | grep -i nvrm` on the host, mend it, and run bootstrap again."
            raise DriverError(f"driver {action['version']} is installed and does not load: found {found}. {remedy}")
        self._start_watchers()

    @staticmethod
    def _start_watchers() -> None:
        for unit in (PERSISTENCE, *UNITS.values()):
            if _enabled(unit) in ("enabled", "static"):
                run(["systemctl", "start", f"{unit}.service"], 300)


def kind_option(branch: int, kind: str) -> str:
    """Return how NVIDIA's installer is told which modules; it learned the plain word with 560."""
    if branch >= 560:
        return f"--kernel-module-type={kind}"
    return "--kernel-module-build-directory=" + ("kernel-open" if kind == "open" else "kernel")


def _loaded() -> dict[str, Any] | None:
    path = look.ROOT / "proc/driver/nvidia/version"
    return look.loaded(path.read_text()) if path.exists() else None


def _build_log() -> str:
    """Return the lines of DKMS's newest build log that say what went wrong; nothing where all went well."""
    logs = sorted(Path("/var/lib/dkms").glob("nvidia*/*/build/make.log"), key=lambda path: path.stat().st_mtime)
    if not logs:
        return ""
    lines = logs[-1].read_text(encoding="utf-8", errors="replace").splitlines()
    if not any(line.startswith("# exit code: ") and line != "# exit code: 0" for line in lines):
        return ""
    errors = [line for line in lines if re.search(r": error:|\*\*\* .*(No rule|Stop)|: not found|No space left", line)]
    return "\n".join(line[-300:] for line in (errors or lines)[:4])


def in_words(action: Mapping[str, Any]) -> str:
    """Say in a few words what an action does, for what a person is shown."""
    words = {
        "stream": "choose the stream {name}",
        "remove": "remove {names}",
        "install": "install {names}",
        "run_file": "run {path} for {kernel}",
        "block_nouveau": "block nouveau",
        "build": "build the module {version} for {kernel}",
        "hold": "hold its packages at this version",
        "enable": "start {unit} at boot",
        "load": "load the driver {version}",
        "let_go": "let go of the packages that are held",
        "reload": "load the driver {version} in the place of the other",
    }
    shown = {**action, "names": " ".join(action.get("names", []))}
    without = f", remove {' '.join(action['without'])}" if action.get("without") else ""
    return words[action["do"]].format(**shown) + without
