#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""Bring the gateway's files to it: checked before they are written, loaded without losing a stream, put back if not."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import subprocess
import time
from pathlib import Path

from ansible.module_utils import onprem_llm_gateway_compose as engine
from ansible.module_utils import onprem_llm_gateway_files as files
from ansible.module_utils import onprem_llm_usage as usage
from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.onprem_llm_gateway_files import FilesError
from ansible.module_utils.onprem_llm_haproxy import Gateway, HaproxyError

DOCUMENTATION = r"""
module: gateway_load
short_description: Write the gateway's files and let HAProxy read them
description:
  - Writes the rendered files and C(secrets/engine-keys.cfg) below O(path), all or none, once C(docker compose config)
    and C(haproxy -c) in a container of the same image have accepted them.
  - The container is started or made anew only where it does not run or its compose.yaml or image changed. Else a
    changed file is a reload, with the state of the servers handed on. Where neither works, the former files are put
    back, and HAProxy's words are the message.
  - An action plugin of the same name reads the files on the control host and passes them as O(contents).
options:
  name:
    description: Name of the Compose project.
    type: str
    default: gateway
  path:
    description: Folder of the project on the host.
    type: path
    required: true
  source:
    description: Folder of the rendered files on the control host; read by the action plugin.
    type: path
  files:
    description: Relative path and sha256 of each file; the action plugin refuses a file with another digest.
    type: dict
    required: true
  contents:
    description: Relative path and content in base64 of each file; set by the action plugin.
    type: dict
  engine_keys:
    description: Environment variable and name of the engine key that it holds.
    type: dict
    default: {}
  secrets:
    description: Folder of the engine keys on the host.
    type: path
    required: true
  keys:
    description: Folder of the client keys on the host.
    type: path
    default: /var/lib/onprem-llm/keys
  states:
    description: Server (deployment/project) and the state that it shall have, C(ready), C(drain) or C(maint).
    type: dict
    default: {}
  wait:
    description: Seconds until HAProxy must answer in a started container.
    type: int
    default: 60
  recreate:
    description: Make the container anew even where nothing differs.
    type: bool
    default: false
author: the onprem-llm authors
"""

EXAMPLES = r"""
- name: Load the gateway
  gateway_load:
    path: /srv/onprem-llm/gateway
    source: /tmp/plan/files/host-1/gateway
    secrets: /srv/onprem-llm/secrets
    files:
      compose.yaml: 2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae
"""

RETURN = r"""
action:
  description: What was done, C(none), C(reload) or C(start).
  type: str
  returned: success
written:
  description: Files that were written.
  type: list
  returned: success
warnings:
  description: What HAProxy warned of at a reload.
  type: list
  returned: success
"""

STATE_FILE = Path("state", "servers")
STATES = ("ready", "drain", "maint")
POLL = 0.3  # seconds


def wanted_files(params):
    """Return {path: content} of all that this module writes."""
    wanted = {name: base64.b64decode(text) for name, text in params["contents"].items()}
    files.check_names(wanted)
    wanted[files.ENGINE_KEYS] = files.engine_keys(params["secrets"], params["engine_keys"]).encode()
    wanted["secrets/env"] = b""
    wanted[".env"] = f"ONPREM_LLM_SECRETS={hashlib.sha256(b'').hexdigest()[:16]}\n".encode()
    return wanted


def settle(gateway, states):
    """Give servers the states that they shall have; return whether any had another. Unknown servers are an error."""
    if not states:
        return False
    known, changed = gateway.worker().servers(), False
    for name, state in sorted(states.items()):
        if state not in STATES:
            raise HaproxyError(f"{name} cannot be {state!r}; expected {', '.join(STATES)}")
        if name not in known:
            raise HaproxyError(f"the gateway does not know {name}; it has {', '.join(sorted(known)) or 'none'}")
        if known[name]["admin"] != state:
            gateway.worker().tell(f"set server {name} state {state}")
            changed = True
    return changed


def start(params, folder, gateway, recreate):
    """Start the container and wait until HAProxy answers, O(wait) seconds at most."""
    engine.up(folder, params["name"], recreate)
    end = time.monotonic() + params["wait"]
    while True:
        engine.check_alive(params["name"])
        try:
            gateway.worker().ask("show info")
        except HaproxyError as error:
            if time.monotonic() > end:
                raise FilesError(f"the gateway was started, but not ready within {params['wait']} s: {error}") from None
            time.sleep(POLL)
        else:
            return


def start_or_go_back(params, folder, gateway, former):
    """Start the container, or what ran before."""
    try:
        start(params, folder, gateway, params["recreate"])
    except FilesError as error:
        engine.stop(folder, params["name"])
        files.restore(folder, former)
        if former.get(files.COMPOSE_FILE) is None:
            raise FilesError(f"{error}\nIt was left stopped.") from None
        try:
            start(params, folder, gateway, False)
        except FilesError as again:
            raise FilesError(f"{error}\nThe former files were put back, but with them too: {again}") from None
        raise FilesError(f"{error}\nThe former files were put back, and the gateway runs with them again.") from None


def reload(params, folder, gateway, former):
    """Let HAProxy read the files, or put the former ones back; return its warnings."""
    gateway.dump_state(folder / STATE_FILE)
    with contextlib.suppress(HaproxyError, OSError):
        usage.collect(Path(params["keys"]), gateway)
    try:
        return gateway.reload()
    except HaproxyError as error:
        files.restore(folder, former)
        said = engine.readable(str(error), folder, folder)
        try:
            gateway.reload()  # the master waits without a configuration until it has read one
            more = "the gateway goes on with them"
        except HaproxyError:
            more = "the gateway's old process goes on serving"
        raise FilesError(
            f"HAProxy did not take the new files; the former ones were put back, {more}:\n{said}"
        ) from None


def load(params, check_mode):
    """Return (what was done, written files, warnings, whether a server's state was changed)."""
    folder, name = Path(params["path"]), params["name"]
    gateway, wanted = Gateway(folder), wanted_files(params)
    written = files.differing(folder, wanted)
    rendered = {path for path in wanted if path in params["contents"]}
    differs = bool(written) or files.recorded(folder) != rendered
    if check_mode:
        return ("reload" if differs else "none"), written, [], False
    files.folders(folder)
    with files.staged(folder, wanted) as staged:
        changed_since = differs or files.loaded(folder) != files.sums(folder)
        if changed_since:
            engine.validate(folder, staged, name)
        same = not params["recreate"] and engine.as_described(folder, staged / files.COMPOSE_FILE, name)
    former = files.swap(folder, wanted) if differs else {path: wanted[path] for path in wanted}
    warnings, action = [], "none"
    if not same:
        hand_over(params, folder, gateway)
        start_or_go_back(params, folder, gateway, former)
        action = "start"
    elif changed_since:
        warnings, action = reload(params, folder, gateway, former), "reload"
    if action != "none":
        files.remember_loaded(folder)
    moved = settle(gateway, params["states"])
    if moved or action == "start":
        gateway.dump_state(folder / STATE_FILE)
    return action, written, warnings, moved


def hand_over(params, folder, gateway):
    """Keep what a running process knows before its container is made anew."""
    try:
        gateway.dump_state(folder / STATE_FILE)
        usage.collect(Path(params["keys"]), gateway)
    except (HaproxyError, OSError):
        if not (folder / STATE_FILE).exists():
            (folder / STATE_FILE).write_text("1\n", encoding="utf-8")


ARGUMENTS = {
    "name": {"type": "str", "default": "gateway"},
    "path": {"type": "path", "required": True},
    "source": {"type": "path"},
    "files": {"type": "dict", "required": True},
    "contents": {"type": "dict", "required": True},
    "engine_keys": {"type": "dict", "default": {}, "no_log": False},
    "secrets": {"type": "path", "required": True, "no_log": False},
    "keys": {"type": "path", "default": "/var/lib/onprem-llm/keys", "no_log": False},
    "states": {"type": "dict", "default": {}},
    "wait": {"type": "int", "default": 60},
    "recreate": {"type": "bool", "default": False},
}


def main():
    """Run as an Ansible module."""
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    try:
        action, written, warnings, moved = load(module.params, module.check_mode)
    except (FilesError, HaproxyError) as error:
        module.fail_json(msg=str(error), invocation={})
    except (OSError, subprocess.SubprocessError, json.JSONDecodeError) as error:
        module.fail_json(msg=f"cannot load the gateway {module.params['path']}: {error}", invocation={})
    changed = action != "none" or bool(written) or moved
    module.exit_json(changed=changed, action=action, written=written, warnings=warnings, invocation={})


if __name__ == "__main__":
    main()
