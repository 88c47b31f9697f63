#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""Let a running gateway read files that another role has changed: certificates, above all."""

from __future__ import annotations

from pathlib import Path

from ansible.module_utils import onprem_llm_gateway_files as files
from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.onprem_llm_haproxy import Gateway, HaproxyError, NotRunningError

DOCUMENTATION = r"""
module: gateway_reload
short_description: Let a running gateway read its files again, where they changed
description:
  - Nothing is done where the process has read them all, or where none runs. Who is drained stays drained.
options:
  path:
    description: Folder of the gateway's project.
    type: path
    required: true
author: the onprem-llm authors
"""

EXAMPLES = r"""
- name: Use the new certificate
  gateway_reload:
    path: /srv/onprem-llm/gateway
"""

RETURN = r"""#"""


def reload(folder, check_mode):
    """Reload where files differ from what was read; return whether that was so."""
    if not folder.is_dir() or files.loaded(folder) == files.sums(folder):
        return False
    gateway = Gateway(folder)
    try:
        gateway.worker()
    except NotRunningError:
        return False
    if not check_mode:
        gateway.dump_state(folder / "state" / "servers")
        gateway.reload()
        files.remember_loaded(folder)
    return True


def main():
    """Run as an Ansible module."""
    module = AnsibleModule(
        argument_spec={"path": {"type": "path", "required": True}},
        supports_check_mode=True,
    )
    try:
        changed = reload(Path(module.params["path"]), module.check_mode)
    except (HaproxyError, OSError) as error:
        module.fail_json(msg=f"the gateway did not take its new files, and goes on with the old ones: {error}")
    module.exit_json(changed=changed)


if __name__ == "__main__":
    main()
