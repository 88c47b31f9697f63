#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""Keep the client keys of a gateway: in files that outlive it, and in the process that runs."""

from __future__ import annotations

import hashlib
import time
from pathlib import Path

from ansible.module_utils import onprem_llm_client_keys as store
from ansible.module_utils import onprem_llm_usage as usage
from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.onprem_llm_client_keys import INTERNAL, KeysError
from ansible.module_utils.onprem_llm_haproxy import Gateway, HaproxyError

DOCUMENTATION = r"""
module: gateway_keys
short_description: Keep the client keys of a gateway
description:
  - Only hashes are kept. Files and the running process are changed together, without a reload; what a run that was cut
    off left undone is done by the next.
  - C(prepare) makes the folder and an empty record where there is none, and takes the internal keys from their files.
options:
  action:
    description: What to do.
    type: str
    choices: [prepare, create, revoke, list, usage]
    required: true
  path:
    description: Folder of the keys on the host, 0700.
    type: path
    default: /var/lib/onprem-llm/keys
  project:
    description: Folder of the gateway's project.
    type: path
    required: true
  name:
    description: Name of the key, for C(create) and C(revoke).
    type: str
  key:
    description: For C(create), a mapping with C(models), C(rate), C(expires) and C(by).
    type: dict
  sha256:
    description: For C(create), the hash of the key. It is in no log and no result.
    type: str
  internal:
    description: For C(prepare), names of the internal keys, each with a file C(client-<name>) in O(secrets).
    type: list
    elements: str
    default: []
  secrets:
    description: Folder of the clear text of internal keys.
    type: path
author: the onprem-llm authors
"""

EXAMPLES = r"""
- name: Take a key away
  gateway_keys:
    action: revoke
    name: alice
    project: /srv/onprem-llm/gateway
"""

RETURN = r"""
onprem_llm:
  description: C(keys) (without hashes) for C(list), C(usage) for C(usage).
  type: dict
  returned: success
"""


def entry(sha256, about, by, now, before):
    """Return a key as the record has it; it was made later than the one of that name `before`, whatever the clock says.

    Of two keys of one name the one that was made later counts, and another gateway host's clock may be ahead.
    """
    if before:
        now = max(now, before["created"] + 1, (before["revoked"] or 0) + 1)
    return {
        "sha256": sha256,
        "models": about.get("models"),
        "rate": about.get("rate"),
        "expires": about.get("expires"),
        "created": now,
        "created_by": by,
        "revoked": None,
    }


def prepared(record, params, now):
    """Put the internal keys into the record."""
    for name in params["internal"]:
        if name not in INTERNAL:
            raise KeysError(f"{name!r} is no internal key; expected one of {', '.join(INTERNAL)}")
        path = Path(params["secrets"], f"client-{name}")
        try:
            value = path.read_text(encoding="utf-8").strip()
        except OSError as error:
            raise KeysError(f"the internal key {path} cannot be read: {error.strerror}") from None
        if not value:
            raise KeysError(f"the internal key {path} is empty; remove it, and deploy makes a new one")
        sha256 = hashlib.sha256(value.encode()).hexdigest()
        before = record["keys"].get(name)
        if not before or before["sha256"] != sha256 or before["revoked"] is not None:
            record["keys"][name] = entry(sha256, {}, "onprem-llm", now, before)


def created(record, params, now):
    """Put a new key into the record. The same key once more is what a run that was cut off left."""
    name, about, sha256 = params["name"], params["key"] or {}, params["sha256"] or ""
    if name in INTERNAL:
        raise KeysError(f"{name!r} is the name of an internal key; choose another")
    before = record["keys"].get(name)
    if before and before["revoked"] is None:
        if before["sha256"] == sha256:
            return
        raise KeysError(f"there is a key called {name!r} already; revoke it first, or choose another name")
    if any(key["sha256"] == sha256 for other, key in record["keys"].items() if other != name):
        raise KeysError("this key is known under another name; make a new one")
    record["keys"][name] = entry(sha256, about, about.get("by") or "unknown", now, before)


def revoked(record, params, now):
    """Take a key away; its name stays known, with what it used."""
    name = params["name"]
    if name in INTERNAL:
        raise KeysError(f"{name!r} is an internal key, of onprem-llm itself; it cannot be revoked")
    key = record["keys"].get(name)
    if not key:
        known = ", ".join(sorted(one for one in record["keys"] if one not in INTERNAL)) or "none"
        raise KeysError(f"no key is called {name!r}; keys: {known}")
    if key["revoked"] is None:
        key["revoked"] = now


CHANGES = {"prepare": prepared, "create": created, "revoke": revoked}


def change(folder, params, check_mode):
    """Change the record, then the process; return whether anything differed."""
    gateway = Gateway(params["project"])
    if params["action"] == "prepare" and not folder.exists():
        if check_mode:
            return True
        folder.mkdir(mode=0o700, parents=True)
        folder.chmod(0o700)
    store.check_folder(folder)
    with store.locked(folder):
        if params["action"] == "prepare" and not (folder / store.RECORD).exists():
            record = {"version": store.VERSION, "serial": 0, "keys": {}}
        else:
            record = store.read(folder)
        before = {name: dict(key) for name, key in record["keys"].items()}
        CHANGES[params["action"]](record, params, int(time.time()))
        try:
            store.check_record(record)
        except (ValueError, KeyError, TypeError) as error:
            raise KeysError(f"this key cannot be kept: {error}") from None
        if check_mode:
            return record["keys"] != before
        if record["keys"] != before:
            record["serial"] += 1
        changed = store.write(folder, record)
        return store.tell(gateway, record) > 0 or changed


def listed(record):
    """Return the keys for people: everything but the hashes."""
    hidden = {
        name: {field: value for field, value in key.items() if field != "sha256"}
        for name, key in record["keys"].items()
    }
    return {name: dict(key, internal=name in INTERNAL) for name, key in hidden.items()}


def run(params, check_mode):
    """Return (changed, what is returned under onprem_llm)."""
    folder, action = Path(params["path"]), params["action"]
    if action == "list":
        record = store.read(folder)
        return False, {"keys": listed(record), "keys_serial": record["serial"]}
    if action == "usage":
        keys = store.read(folder)["keys"]
        totals = usage.collect(folder, Gateway(params["project"]))
        return False, {"usage": {name: totals.get(name, usage.nothing()) for name in sorted({*keys, *totals})}}
    return change(folder, params, check_mode), {}


def main():
    """Run as an Ansible module."""
    module = AnsibleModule(
        argument_spec={
            "action": {"type": "str", "choices": ["prepare", "create", "revoke", "list", "usage"], "required": True},
            "path": {"type": "path", "default": "/var/lib/onprem-llm/keys"},
            "project": {"type": "path", "required": True},
            "name": {"type": "str"},
            "key": {"type": "dict", "no_log": False},
            "sha256": {"type": "str", "no_log": True},
            "internal": {"type": "list", "elements": "str", "default": []},
            "secrets": {"type": "path", "no_log": False},
        },
        required_if=[
            ("action", "create", ["name", "key", "sha256"]),
            ("action", "revoke", ["name"]),
            ("action", "prepare", ["secrets"]),
        ],
        supports_check_mode=True,
    )
    try:
        changed, returned = run(module.params, module.check_mode)
    except (KeysError, HaproxyError) as error:
        module.fail_json(msg=str(error), invocation={})
    except OSError as error:
        module.fail_json(msg=f"cannot keep the keys in {module.params['path']}: {error}", invocation={})
    module.exit_json(changed=changed, invocation={}, onprem_llm=returned)


if __name__ == "__main__":
    main()
