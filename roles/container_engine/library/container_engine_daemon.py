"""Ansible module: merge settings into docker's daemon.json, and make a running engine take them over.

Containers survive it: live-restore is switched on by a reload first, and only then is the engine restarted, where
a restart is needed at all. An engine that does not come back gets its old file again. The old file lies beside the
new one until the engine has taken it over, so that a run that was cut off is finished by the next one.
"""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path
from typing import Any, Callable, NoReturn

from ansible.module_utils import onprem_llm_record as record
from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.container_engine_run import docker_info, last_journal_lines
from ansible.module_utils.container_engine_settings import (
    RELOADABLE,
    Settings,
    SettingsError,
    asked_settings,
    changed_keys,
    holds_password,
    merged,
    parse,
    text_of,
)
from ansible.module_utils.onprem_llm_command import run

DOCUMENTATION = r"""
module: container_engine_daemon
short_description: Merge settings into daemon.json without stopping a container
options:
  path: {description: The file., type: path, default: /etc/docker/daemon.json}
  enforced: {description: Settings that are written over what the file has., type: dict, default: {}}
  defaults: {description: Settings that are written where the file has none., type: dict, default: {}}
  defaults_of_new: {description: The same where there is no engine yet., type: dict, default: {}}
  address_pools: {description: Networks that docker may use., type: list, elements: dict}
  proxy: {description: The engine's proxy as http https no_proxy., type: dict}
author: [onprem-llm]
"""

OPTIONS: dict[str, Any] = {
    "path": {"type": "path", "default": "/etc/docker/daemon.json"},
    "enforced": {"type": "dict", "default": {}},
    "defaults": {"type": "dict", "default": {}},
    "defaults_of_new": {"type": "dict", "default": {}},
    "address_pools": {"type": "list", "elements": "dict"},
    # A proxy's address may hold a password.
    "proxy": {"type": "dict", "no_log": True},
}
OLD_FILE = ".before-onprem-llm"
RELOAD_S, RESTART_S = 15.0, 90.0


class Daemon:
    """One daemon.json and the engine that reads it."""

    def __init__(self, module: AnsibleModule) -> None:
        """Read the file; fail where it is no JSON object."""
        self.module = module
        self.path = Path(module.params["path"]).resolve()
        self.old = self.path.with_name(self.path.name + OLD_FILE)
        self.text = self._read(self.path)
        self.before = self._parse(self.text, self.path)
        asked = asked_settings(module.params["address_pools"], module.params["proxy"])
        defaults = module.params["defaults"]
        if run(["dockerd", "--version"])[0] != 0:
            defaults = merged(module.params["defaults_of_new"], {}, defaults)
        self.after = merged(self.before, {**module.params["enforced"], **asked}, defaults)
        self.unfinished = self.old.exists()
        # After a run that was cut off, what the engine has is the old file.
        running_with = self._parse(self._read(self.old), self.old) if self.unfinished else self.before
        self.keys = changed_keys(running_with, self.after)

    def configure(self) -> None:
        """Bring file and engine to what is wanted."""
        mode = self._mode()
        changed = self.after != self.before or self.unfinished or self._mode_of_file() not in (None, mode)
        if changed and not self.module.check_mode:
            installed = run(["dockerd", "--version"])[0] == 0
            if installed:
                self._validate()
            self._write(mode)
            if installed and run(["systemctl", "is-active", "--quiet", "docker"])[0] == 0:
                self._apply()
            if self.old.exists():
                self.old.unlink()
        self.module.exit_json(changed=changed, keys=sorted(self.keys))

    def _read(self, path: Path) -> str:
        return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""

    def _parse(self, text: str, path: Path) -> Settings:
        try:
            return parse(text)
        except SettingsError as error:
            self._fail(f"{path}: {error}", "docker's settings as a JSON object", "Mend the file; nothing was written.")

    def _mode(self) -> int:
        """Keep a file's mode, but hide a password; 0644 is what docker's packages use."""
        if holds_password(self.after):
            return 0o600
        return self._mode_of_file() or 0o644

    def _mode_of_file(self) -> int | None:
        return self.path.stat().st_mode & 0o777 if self.path.exists() else None

    def _temporary(self, folder: str) -> Path:
        """Write the new settings into a file that root alone can read."""
        handle, path = tempfile.mkstemp(prefix=".daemon.json.", dir=folder)
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            stream.write(text_of(self.after))
        return Path(path)

    def _validate(self) -> None:
        """Ask the engine that is installed; nothing has been written yet."""
        path = self._temporary(tempfile.gettempdir())
        try:
            code, said = run(["dockerd", "--validate", "--config-file", str(path)])
        finally:
            path.unlink()
        if code != 0:
            self._fail(
                f"{self.path} with our settings is refused by dockerd: {said.replace(str(path), str(self.path))}",
                "settings that dockerd accepts",
                "Correct the file; nothing was written. `dockerd --validate` shows the same.",
            )

    def _write(self, mode: int) -> None:
        """Keep the old text first: it is both the way back and the mark that the engine has to follow."""
        self._note()
        self.path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        if not self.unfinished:
            self.old.touch(mode=0o600)
            self.old.write_text(self.text, encoding="utf-8")
        path = self._temporary(str(self.path.parent))
        path.chmod(mode)
        path.replace(self.path)

    def _note(self) -> None:
        """For uninstall: the file as it was found, and our keys."""
        before = self.text if self.path.exists() else None
        ours = {key: self.after[key] for key in changed_keys(self.before, self.after) if key in self.after}
        try:
            record.note_daemon(before, self._mode_of_file(), ours)
        except (OSError, ValueError) as error:
            self._fail(f"that {record.RECORD} cannot be written: {error}", "a note of the old file", "Mend it.")

    def _apply(self) -> None:
        """Reload, which is harmless; restart only with live-restore on, since then containers stay."""
        running = run(["docker", "ps", "--quiet", "--no-trunc"])[1].split()
        run(["systemctl", "reload", "docker"])
        if not self._wait(lambda: bool(docker_info().get("LiveRestoreEnabled")), RELOAD_S):
            said = last_journal_lines("docker", 3)
            self._go_back(restart=False)
            self._fail(
                f"docker does not switch live-restore on: {said}",
                "an engine that keeps its containers when it restarts",
                "Correct what that line names. The old daemon.json is in place again.",
            )
        if not self.keys <= RELOADABLE:
            restarted = run(["systemctl", "restart", "docker"], RESTART_S)[0] == 0
            if not restarted or not self._wait(lambda: bool(docker_info()), RESTART_S):
                said = last_journal_lines("docker")
                self._go_back(restart=True)
                self._fail(
                    f"docker does not start with the new {self.path}:\n{said}",
                    "a running engine",
                    "The old daemon.json is in place again. Correct what the lines above name.",
                )
        self._expect(running)

    def _expect(self, running: list[str]) -> None:
        """Containers that ran before must run on."""
        lost = set(running) - set(run(["docker", "ps", "--quiet", "--no-trunc"])[1].split())
        if lost:
            self.module.warn(f"these containers ran until docker was restarted, and do not now: {sorted(lost)}")

    def _go_back(self, restart: bool) -> None:
        if self._read(self.old).strip():
            self.old.replace(self.path)
        else:
            self.path.unlink()
            self.old.unlink()
        run(["systemctl", "reset-failed", "docker"])
        run(["systemctl", "restart" if restart else "reload", "docker"], RESTART_S)

    def _wait(self, met: Callable[[], bool], seconds: float) -> bool:
        end = time.monotonic() + seconds
        while not met():
            if time.monotonic() > end:
                return False
            time.sleep(0.5)
        return True

    def _fail(self, found: str, expected: str, remedy: str) -> NoReturn:
        self.module.fail_json(msg=f"daemon.json: found {found}; expected {expected}. {remedy}")
        raise AssertionError("fail_json returned")


def main() -> None:
    """Read, merge, validate, write, and have the engine follow."""
    Daemon(AnsibleModule(argument_spec=OPTIONS, supports_check_mode=True)).configure()


if __name__ == "__main__":
    main()
