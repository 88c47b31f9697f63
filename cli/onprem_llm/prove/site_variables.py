"""What the rehearsal needs of the inventory's variables, and nothing else: others may be anybody's secrets.

Values that ansible-vault encrypts one by one stay encrypted; what a wholly encrypted file holds comes out of Ansible in
plain text, and stays out of the rehearsal unless a setting names it.
"""

import functools
import json
import os
import re
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from onprem_llm import fast_yaml
from onprem_llm.ansible_settings import environment, log_nothing
from onprem_llm.connection import Connection
from onprem_llm.errors import InvalidError
from onprem_llm.json_values import is_mapping
from onprem_llm.private_files import password_arguments, private_folder
from onprem_llm.prove import vault_passwords
from onprem_llm.resources import folder
from onprem_llm.spec.site import PREFIX

Variables = dict[str, dict[str, Any]]

TIMEOUT_S = 120
# How ansible-inventory writes what YAML has a tag for.
TAGS = {"__ansible_vault": "!vault", "__ansible_unsafe": "!unsafe"}
WORD = re.compile(r"[A-Za-z_]\w*")


class Tagged(str):
    """A text with a tag of Ansible's: !vault (as it is encrypted) or !unsafe."""

    tag: str

    def __new__(cls, text: str, tag: str) -> "Tagged":
        """Take the text without its tag."""
        made = super().__new__(cls, text)
        made.tag = tag
        return made


class Dumper(yaml.SafeDumper):
    """Writes tagged texts as Ansible reads them."""


Dumper.add_representer(Tagged, lambda dumper, one: dumper.represent_scalar(one.tag, str(one), style="|"))


def variables(connection: Connection) -> Variables:
    """Return host → the variables that a rehearsal needs; nothing is evaluated, no host is asked.

    InvalidError: they cannot be read, or one is encrypted and nobody said with what.
    """
    found = needed(_all(connection), role_variables())
    if connection.vault_password_files or vault_passwords.taken(os.environ, Path.cwd()):
        return found
    for host, values in found.items():
        for name, value in values.items():
            if any(isinstance(text, Tagged) and text.tag == "!vault" for text in _texts(value)):
                raise InvalidError(
                    f"{connection.inventory}: {name} of host {host} is encrypted with ansible-vault, and the "
                    "rehearsal has no password for it",
                    hint="add --vault-password-file FILE; one that ansible.cfg names is not taken, nor is "
                    f"{vault_passwords.IDENTITIES} with a prompt or a path that is not absolute",
                )
    return found


def needed(given: Mapping[str, Mapping[str, Any]], roles: frozenset[str]) -> Variables:
    """Return the site's settings, the roles' variables, and what templates in these name, wherever that leads."""
    known = {name for values in given.values() for name in values if not name.startswith("ansible_")}
    kept: set[str] = set()
    fresh = known & (roles | {PREFIX})
    while fresh:
        kept |= fresh
        texts = [text for values in given.values() for name in fresh for text in _texts(values.get(name))]
        fresh = (known & {word for text in texts if "{" in text for word in WORD.findall(text)}) - kept
    return {host: {name: one for name, one in values.items() if name in kept} for host, values in given.items()}


@functools.cache
def role_variables() -> frozenset[str]:
    """Return what the roles take, from their argument_specs."""
    found: set[str] = set()
    for path in folder("roles").glob("*/meta/argument_specs.yml"):
        for entry in fast_yaml.read(path.read_text("utf-8"))["argument_specs"].values():
            found |= set(entry.get("options") or ())
    return frozenset(found)


def _all(connection: Connection) -> Variables:
    with private_folder() as private:
        words = password_arguments(connection, private)
        vault = [
            pair for at, word in enumerate(words) if word == "--vault-password-file" for pair in words[at : at + 2]
        ]
        try:
            done = subprocess.run(
                ["ansible-inventory", "-i", str(connection.inventory), "--list", *vault],
                capture_output=True, text=True, check=False, timeout=TIMEOUT_S, stdin=subprocess.DEVNULL,
                env={**os.environ, **environment(None, private), **log_nothing(private)},
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            raise _unreadable(connection, f"it did not end in {TIMEOUT_S} s") from None
    try:
        found = json.loads(done.stdout, object_hook=_tagged)["_meta"]["hostvars"]
    except (ValueError, KeyError, TypeError):
        raise _unreadable(connection, "\n".join(done.stderr.strip().splitlines()[-6:])) from None
    return {str(name): dict(values) for name, values in found.items() if is_mapping(values)}


def _unreadable(connection: Connection, details: str) -> InvalidError:
    return InvalidError(
        f"{connection.inventory}: ansible-inventory cannot read it",
        details=details,
        hint=f"see it by itself: ansible-inventory -i {connection.inventory} --list",
    )


def _tagged(values: dict[str, Any]) -> Any:
    name, value = next(iter(values.items()), ("", None))
    return Tagged(value, TAGS[name]) if len(values) == 1 and name in TAGS and isinstance(value, str) else values


def _texts(value: object) -> Iterator[str]:
    """Yield every text in a value, keys too."""
    if isinstance(value, str):
        yield value
    elif is_mapping(value):
        for key, one in value.items():
            yield str(key)
            yield from _texts(one)
    elif isinstance(value, list):
        for one in value:
            yield from _texts(one)
