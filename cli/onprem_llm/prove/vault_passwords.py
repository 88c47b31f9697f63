"""The environment's words for where vaults' passwords are, as a command finds them that runs in another folder.

ansible.cfg counts in the folder that it lies in alone; what it names is not taken.
"""

import os
from collections.abc import Mapping
from pathlib import Path

FILE, IDENTITIES = NAMES = ("ANSIBLE_VAULT_PASSWORD_FILE", "ANSIBLE_VAULT_IDENTITY_LIST")


def taken(given: Mapping[str, str], folder: Path) -> dict[str, str]:
    """Return what of an environment, `given` to a process in `folder`, serves a process in any folder.

    The password file's path is absolute then; identities are taken if the paths of all are: nobody answers a prompt.
    """
    found = {}
    if file := given.get(FILE):
        found[FILE] = str(folder / _expanded(file.replace("{{CWD}}", str(folder))))  # as Ansible reads it
    identities = [one.strip().partition("@") for one in given.get(IDENTITIES, "").split(",")]
    if all(Path(_expanded(source if at else name)).is_absolute() for name, at, source in identities):
        found[IDENTITIES] = given[IDENTITIES]
    return found


def _expanded(path: str) -> str:
    return os.path.expanduser(os.path.expandvars(path))  # noqa: PTH111 - Path.expanduser raises for unknown users
