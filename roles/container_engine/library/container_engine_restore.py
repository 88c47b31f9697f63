"""Ansible module: take back what bootstrap changed on a host, as its notes say, and nothing else."""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path
from typing import Any

from ansible.module_utils import container_engine_rules as rules
from ansible.module_utils import container_engine_undo as undo
from ansible.module_utils import onprem_llm_cdi as cdi
from ansible.module_utils import onprem_llm_record as record_part
from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.onprem_llm_command import run
from ansible.module_utils.onprem_llm_write import put

DOCUMENTATION = r"""
module: container_engine_restore
short_description: Take back what bootstrap changed on a host
description:
  - Reads C(/var/lib/onprem-llm/bootstrap.json), and removes it when all is done. daemon.json gets back what stood
    there, packages that bootstrap installed go, and with an engine its interface and its rules.
  - An engine that still has containers stays, with its packages; so does a package that others depend on.
options:
  purge: {description: Remove docker's data too (images and volumes)., type: bool, default: false}
author: [onprem-llm]
"""

RETURN = r"""
onprem_llm:
  description: C(notes), sentences about what stays and why.
  type: dict
  returned: always
"""

OPTIONS: dict[str, Any] = {"purge": {"type": "bool", "default": False}}
OURS = (
    "/etc/systemd/system/docker.service.wants/onprem-llm-start-cdi.service",
    "/etc/systemd/system/onprem-llm-start-cdi.service",
    "/usr/local/libexec/onprem-llm-start-cdi",
)
CERTIFICATES = {
    "/usr/local/share/ca-certificates/onprem-llm-extra.crt": ["update-ca-certificates", "--fresh"],
    "/etc/pki/ca-trust/source/anchors/onprem-llm-extra.pem": ["update-ca-trust", "extract"],
}
DAEMON = Path("/etc/docker/daemon.json")
DATA = ("/var/lib/docker", "/var/lib/containerd")
NUKE = Path("/var/lib/docker/nuke-graph-directory.sh")
UNITS = ("docker.socket", "docker.service", "containerd.service")
LONG_S = 900


class RestoreError(Exception):
    """What could not be taken back, and what to do."""


class Host:
    """One host on its way back."""

    def __init__(self, purge: bool) -> None:
        """Read the notes."""
        self.purge = purge
        self.record = record_part.load()
        self.notes: list[str] = []
        self.changed = False

    def restore(self) -> None:
        """Take everything back, the record last: what was cut off is finished by the next run."""
        for path in OURS:
            self._unlink(Path(path))
        for path, command in CERTIFICATES.items():
            if self._unlink(Path(path)):
                run(command, 120)
        if not self.record:
            self.notes.append("no notes of a bootstrap: packages and daemon.json were left as they are")
            return
        for registry in self.record.get("registries", []):
            run(["docker", "logout", registry])
        packages = self.record.get("packages", [])
        engine = [name for name in packages if name in undo.ENGINES]
        foreign = self._containers() if engine else ""
        self._daemon_json()
        if not foreign:
            self._unhold()
        if engine and not foreign:
            self._stop_engine()
            self._remove(packages)
            if "docker" not in self.record.get("groups", ["docker"]) and shutil.which("dockerd") is None:
                run(["groupdel", "docker"])
        else:
            self._keep_engine(packages, foreign)
        self._remove_absent()
        self._put_back()
        self.changed = True
        if not foreign:
            self._close_notes()

    def _close_notes(self) -> None:
        """End the notes; of data that stays they still say that it is ours, for a later purge."""
        kept = {key: [path for path in self.record.get(key, []) if path in DATA] for key in ("absent", "empty")}
        if not self.purge and any(Path(path).exists() for paths in kept.values() for path in paths):
            record_part.save(kept)
        else:
            record_part.RECORD.unlink()

    def _unlink(self, path: Path) -> bool:
        if not os.path.lexists(path):
            return False
        path.unlink()
        self.changed = True
        return True

    def _unhold(self) -> None:
        """Let go of the versions of a GPU driver, its kernel, the toolkit: a held package cannot be removed."""
        held = self.record.get("held", [])
        if held:
            tool = ["apt-mark", "unhold"] if shutil.which("apt-mark") else ["dnf", "--quiet", "versionlock", "delete"]
            run([*tool, *held], 300)
        if self.record.get("run_file") and shutil.which("nvidia-uninstall"):
            run(["nvidia-uninstall", "--silent"], LONG_S)
        if [name for name in held if not undo.TOOLKIT.match(name)] or self.record.get("run_file"):
            self.notes.append("NVIDIA's driver, where bootstrap installed it, is out of the kernel after a reboot")

    def _containers(self) -> str:
        """Return what keeps the engine: containers that are not ours (ours are gone by now), or silence."""
        if shutil.which("docker") is None:
            return ""
        code, text = run(["docker", "ps", "--all", "--format", "{{.Names}}"])
        if code != 0:
            raise RestoreError(
                "docker does not answer, and whether it has containers of others is unknown. "
                "Start it (systemctl start docker) and run the same command again"
            )
        return ", ".join(sorted(text.split()))

    def _daemon_json(self) -> None:
        daemon = self.record.get("daemon")
        if daemon is None or not DAEMON.exists():
            return
        try:
            text = undo.settings_after(DAEMON.read_text(encoding="utf-8"), daemon)
        except undo.SettingsError as error:
            raise RestoreError(f"{DAEMON}: {error}. Mend the file and run the same command again") from error
        if text is None:
            DAEMON.unlink()
            return
        put(DAEMON, text, daemon.get("mode") or DAEMON.stat().st_mode & 0o777)

    def _keep_engine(self, packages: list[str], foreign: str) -> None:
        if foreign:
            self.notes.append(
                f"docker stays with its packages, since it has containers of others: {foreign}. "
                "Uninstall again once they are gone, or keep docker"
            )
        elif packages:
            self._remove(packages)
        if run(["systemctl", "is-active", "--quiet", "docker"])[0] == 0:
            # Never a restart: without live-restore it would end what runs.
            run(["systemctl", "reload", "docker"])
            self.notes.append("docker takes over its old daemon.json in full at its next start")
        if self.record.get("services", {}).get("docker.service") == "disabled":
            run(["systemctl", "disable", "docker.service"])

    def _stop_engine(self) -> None:
        run(["systemctl", "stop", *UNITS], 120)
        rules.drop(self.record.get("kernel", {}))
        if Path("/sys/class/net/docker0").exists():
            run(["ip", "link", "delete", "docker0"])

    def _remove(self, packages: list[str]) -> None:
        """Remove what bootstrap installed, but for what others have come to depend on."""
        if shutil.which("apt-get") is None:
            code, text = run(["rpm", "--erase", *packages], LONG_S)
            if code != 0:
                self.notes.append(f"packages stay, since rpm says: {text[-300:]}")
            return
        going = self._removable([name for name in packages if self._installed(name)])
        if going:
            self._apt_get("remove", going)
        if not self.purge:
            with contextlib.suppress(FileNotFoundError):
                NUKE.unlink()  # docker.io's own: purging the package would take images and volumes along
        if going:
            self._apt_get("purge", going)

    def _removable(self, going: list[str]) -> list[str]:
        while going:
            needed = undo.still_needed(self._apt_get("remove", going, "--simulate"), going)
            if not needed:
                break
            command = ["apt-cache", "depends", "--recurse", "--installed", "--no-recommends", "--no-suggests"]
            used = set(run([*command, *needed], 60)[1].split())
            kept = [name for name in going if name in used or name.partition(":")[0] in used]
            if not kept:
                self.notes.append(f"packages stay, since {', '.join(needed)} would go too: {', '.join(going)}")
                return []
            self.notes.append(f"{', '.join(kept)} stay, since {', '.join(needed)} needs them")
            going = [name for name in going if name not in kept]
        return going

    def _installed(self, name: str) -> bool:
        return run(["dpkg-query", "--show", "--showformat", "${db:Status-Abbrev}", name])[0] == 0

    def _apt_get(self, verb: str, names: list[str], *options: str) -> str:
        environment = ["env", "DEBIAN_FRONTEND=noninteractive", "LC_ALL=C", "apt-get", "--quiet", "--yes"]
        code, text = run([*environment, "-o", "DPkg::Lock::Timeout=300", *options, verb, *names], LONG_S)
        if code != 0:
            raise RestoreError(f"apt-get {verb} failed: {text[-400:]}")
        return text

    def _remove_absent(self) -> None:
        """Remove what was not there before, folders only where nothing is left in them."""
        gone = self.record.get("absent", [])
        keep_data = not self.purge or shutil.which("dockerd") is not None
        for name in sorted([*gone, *self.record.get("empty", [])], key=len, reverse=True):
            path = Path(name)
            if name in DATA and not keep_data:
                self._clear(path)
            elif path.is_file() or path.is_symlink():
                path.unlink()
            if name in gone and path.is_dir() and not any(path.iterdir()):
                path.rmdir()

    def _put_back(self) -> None:
        """Put back specifications of GPUs that were kept current, but for one that names what is gone by now."""
        for name, found in self.record.get("files", {}).items():
            gone = [path for path in cdi.host_paths(found["before"]) if not Path(path).exists()]
            if gone:
                self.notes.append(f"{name} stays: the one from before bootstrap names {gone[0]}, which is gone")
            elif Path(name).parent.is_dir():
                put(Path(name), found["before"], found["mode"])

    def _clear(self, folder: Path) -> None:
        for entry in folder.iterdir() if folder.is_dir() else ():
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(str(entry))
            else:
                entry.unlink()


def main() -> None:
    """Restore the host."""
    module = AnsibleModule(argument_spec=OPTIONS)
    try:
        host = Host(module.params["purge"])
        host.restore()
    except (RestoreError, OSError, ValueError) as problem:
        module.fail_json(msg=f"uninstall: {problem}")
        return
    module.exit_json(changed=host.changed, onprem_llm={"notes": host.notes})


if __name__ == "__main__":
    main()
