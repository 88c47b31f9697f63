#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""Keep the client keys of a gateway: in files that outlive it, and in the process that runs."""

from __future__ import annotations

import contextlib
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
  - C(merge) takes the record of a backup that lies as C(given.json) in the folder. What either has as revoked stays so,
    and keys that the backup has not stay.
options:
  action:
    description: What to do.
    type: str
    choices: [prepare, create, revoke, list, usage, merge]
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
  description: C(keys) (without hashes) for C(list), C(usage) for C(usage), C(keys_restored) for
    C(merge).
  type: dict
  returned: success
"""


def prepared(record, params, now):
    """Put the internal keys into the record."""
    unknown = [name for name in params["internal"] if name not in INTERNAL]
    if unknown:
        raise KeysError(f"{unknown[0]!r} is no internal key; expected one of {', '.join(INTERNAL)}")
    store.add_internal(record, params["internal"], params["secrets"], now)


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
    record["keys"][name] = store.entry(sha256, about, about.get("by") or "unknown", now, before)


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
            record = store.empty()
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


def merge(folder, params):
    """Take the record of a backup that was put back; return what became of keys, None where none lies there."""
    path = folder / store.GIVEN
    if not path.exists():
        return None
    with store.locked(folder):
        given, mine, unread = store.read(folder, store.GIVEN), store.empty(), False
        try:
            mine = store.read(folder) if (folder / store.RECORD).exists() else mine
        except KeysError:  # a damaged record is what backups are for
            unread = True
        record = store.restored(mine, given)
        store.write(folder, record)
        path.unlink()
        # A gateway that cannot be told now is told by onprem-llm-keys: the record is here, and that is what counts.
        with contextlib.suppress(HaproxyError):
            store.tell(Gateway(params["project"]), record)
    return dict(compared(mine, given, record), unread=unread)


def compared(mine, given, record):
    """Return whether clients' keys were known before, which of them the backup has not, and which it has as valid."""
    before, then, now = (valid(one) for one in (mine, given, record))
    return {
        "known": any(name not in INTERNAL for name in mine["keys"]),
        "kept": sorted(name for name in now if name in before and then.get(name) != now[name]),
        "revoked": sorted(name for name in then if name not in now),
    }


def valid(record):
    """Return {name: hash} of clients' keys that were not revoked."""
    keys = {name: key for name, key in record["keys"].items() if name not in INTERNAL}
    return {name: key["sha256"] for name, key in keys.items() if key["revoked"] is None}


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
    if action == "merge":
        found = None if check_mode else merge(folder, params)
        return found is not None, {"keys_restored": found} if found else {}
    return change(folder, params, check_mode), {}


CHOICES = ["prepare", "create", "revoke", "list", "usage", "merge"]


def main():
    """Run as an Ansible module."""
    module = AnsibleModule(
        argument_spec={
            "action": {"type": "str", "choices": CHOICES, "required": True},
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
