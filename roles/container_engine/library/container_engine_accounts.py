"""Ansible module: take mirrors' accounts out of the sources that an earlier bootstrap wrote for everybody to read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ansible.module_utils import onprem_llm_package_source as package_source
from ansible.module_utils import onprem_llm_record as record
from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.onprem_llm_apt_get import PackageError

DOCUMENTATION = r"""
module: container_engine_accounts
short_description: Have root alone read the accounts of package mirrors
description:
  - Writes bootstrap's own sources of apt and dnf anew where an address in them has an account.
options: {}
author: [onprem-llm]
"""

OPTIONS: dict[str, Any] = {}


def mend(check_mode: bool) -> list[str]:
    """Return the sources that were (or would be) written anew. PackageError."""
    return [str(path) for path in package_source.with_accounts() if check_mode or _written(path)]


def _written(path: Path) -> bool:
    write = package_source.write_dnf if path.suffix == ".repo" else package_source.write_apt
    if write is package_source.write_apt:
        record.note_absent(package_source.apt_files(path), False)
    try:
        return bool(write(path, path.read_text(encoding="utf-8")))
    except PackageError as problem:
        raise PackageError(f"{path}: {problem}, remove this file on the host, and run bootstrap again") from None


def main() -> None:
    """Look at each source, and name those that changed."""
    module = AnsibleModule(argument_spec=OPTIONS, supports_check_mode=True)
    try:
        written = mend(module.check_mode)
    except (PackageError, OSError, ValueError) as problem:
        module.fail_json(msg=f"packages: {problem}")
        return
    module.exit_json(changed=bool(written), written=written)


if __name__ == "__main__":
    main()
