"""What making a root file system of either family needs: a tool that is there, and a word when it does not go well."""

import os
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence

from onprem_llm.errors import OnpremError
from onprem_llm.lab.mirrors import Mirror, how_to_name
from onprem_llm.lab_systems import System

TIMEOUT_S = 1800
_UNSIGNED = re.compile(r"NO_PUBKEY|not signed|GPG|signature|BADSIG|Public key", re.IGNORECASE)


def ensure_tool(tool: str, packages: Sequence[str]) -> None:
    """Install a tool with apt-get where it is missing; OnpremError where that cannot be done."""
    if shutil.which(tool):
        return
    names = " ".join(packages)
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise OnpremError(f"there is no {tool} on this machine", hint=f"as root: apt-get install {names}")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for argv in (["update"], ["install", "--yes", "--no-install-recommends", *packages]):
        done = subprocess.run(
            ["apt-get", *argv], capture_output=True, text=True, check=False, timeout=600, env=environment
        )
        if done.returncode != 0:
            raise OnpremError(
                f"apt-get {argv[0]} failed", details=done.stderr.strip(), hint=f"mend it, or install {names}"
            )


def carry_out(
    argv: Sequence[str], system: System, mirror: Mirror, environment: Mapping[str, str] | None = None
) -> None:
    """Run what makes a root file system out of a mirror; OnpremError says which mirror, who named it, what it said."""
    done = subprocess.run(
        argv, capture_output=True, text=True, check=False, timeout=TIMEOUT_S,
        env={**os.environ, **(environment or {}), "LC_ALL": "C"},
    )  # fmt: skip
    if done.returncode == 0:
        return
    said = (done.stdout + done.stderr).strip().splitlines()
    telling = [line for line in said if re.match(r"(E|W|Err):? ?|Error|error:|Errors", line)] or said
    hint = how_to_name(system)
    if os.geteuid():
        hint = "run as root"
    elif _UNSIGNED.search("\n".join(telling)):
        hint = f"name the keys that sign it: --mirror-key FILE, or {system.key_variable}=FILE"
    raise OnpremError(
        f"{system.name}: {argv[0]} could not make hosts from {mirror.main} (named by {mirror.named_by})",
        details="\n".join(telling[-8:]),
        hint=hint,
    )
