"""Run apt-get on a host: wait for its locks, and say what it says with what to do."""

from __future__ import annotations

import re
import time

from ansible.module_utils.onprem_llm_command import run

LOCK_WAIT_S = 300
NO_QUESTIONS = {"DEBIAN_FRONTEND": "noninteractive", "NEEDRESTART_SUSPEND": "1", "LC_ALL": "C"}
LOCKED = re.compile(r"^E: (Could not get lock|Unable to acquire)", re.MULTILINE)
# apt's options for one source alone; empty where all that the host has are asked.
scope: list[str] = []


class PackageError(Exception):
    """What was found and expected, and the remedy, in one sentence each."""


def apt_get(arguments: list[str], problem: str) -> str:
    """Run apt-get and return what it printed; another apt that holds a lock (unattended upgrades) is waited for."""
    environment = [f"{name}={value}" for name, value in NO_QUESTIONS.items()]
    lock = ["-o", f"DPkg::Lock::Timeout={LOCK_WAIT_S}"]
    end = time.monotonic() + LOCK_WAIT_S
    while True:
        code, text = run(["env", *environment, "apt-get", "--quiet", *lock, *scope, *arguments], 1800)
        # The timeout above covers dpkg's lock; that of the package lists fails at once.
        if code == 0 or not LOCKED.search(text) or time.monotonic() > end:
            break
        time.sleep(5)
    if code != 0:
        raise PackageError(f"{problem}: apt-get says\n{complaints(text) or text[-600:]}\n{_remedy(text)}")
    return text


def complaints(text: str) -> str:
    """Return of what apt-get printed the lines that say what went wrong."""
    lines = text.splitlines()
    # dpkg says which package it was, and in the line below it why.
    dpkg = [line for pair in zip(lines, [*lines[1:], ""]) if pair[0].startswith("dpkg: error ") for line in pair]
    # apt names who holds dpkg's lock while it waits, and no more when it gives up.
    holder = re.findall(
        r"^Waiting for cache lock: (Could not get lock .* held by process \d+ \(.*?\))", text, re.MULTILINE
    )
    own = [line for line in lines if line.startswith(("E:", "W:", "Err:"))]
    return "\n".join([*holder[-1:], *dpkg[-6:], *own[-6:]])


def _remedy(text: str) -> str:
    if "dpkg --configure -a" in text:
        return "expected packages that are whole. Run `dpkg --configure -a` on the host, then bootstrap again."
    if LOCKED.search(text):
        return (
            f"expected it to be free within {LOCK_WAIT_S} s. Wait until that process has ended (an update of the "
            "system's own may take a while; `ps` on the host shows it), then run bootstrap again."
        )
    if "enough free space" in text or "No space left on device" in text:
        return (
            "expected room for the packages. Make room on the host, in the folder that apt names or with `apt-get "
            "clean`, then run bootstrap again."
        )
    if "dpkg returned an error code" in text:
        return (
            "expected packages that can be configured. Mend or remove the package that dpkg names (on the host: "
            "`dpkg --configure -a` tries again and says more), then run bootstrap again."
        )
    if scope:
        return (
            "expected the packages that the bundle brought, signed by the site's key. Load the bundle again and run "
            "bootstrap again; if a package is missing there, collect the hosts' facts anew and make another bundle."
        )
    return (
        "expected package sources that answer. Correct the host's apt sources, or name mirrors "
        "(onprem_llm_site.package_mirrors) or a proxy (onprem_llm_site.proxy) in group_vars."
    )
