"""The inventory of the rehearsal: the site's hosts, groups and settings, with the lab's addresses and keys."""

import json
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from onprem_llm.connection import Connection
from onprem_llm.errors import InvalidError
from onprem_llm.json_values import is_mapping
from onprem_llm.lab import network
from onprem_llm.private_files import password_arguments, private_folder
from onprem_llm.prove.likeness import Substitute
from onprem_llm.spec.site import PREFIX

FILE = "inventory.yml"
# What a loaded site has, and the setting that names it; and where the site has the same from instead. What is rehearsed
# comes from the bundle alone.
FOLDERS = {"packages_dir": "packages", "registry_dir": "registry", "images_dir": "images"}
INSTEAD = {"registry": "registry", "package_mirrors": "packages"}
# The number of the shared address in the lab's network; hosts are numbered from network.FIRST_HOST on.
SHARED = 200


def variables(connection: Connection) -> dict[str, dict[str, Any]]:
    """Return host → its variables, as Ansible reads the inventory; nothing is evaluated, no host is asked."""
    with private_folder() as private:
        words = [word for word in password_arguments(connection, private) if word]
        vault = [
            pair for at, word in enumerate(words) if word == "--vault-password-file" for pair in words[at : at + 2]
        ]
        done = subprocess.run(
            ["ansible-inventory", "-i", str(connection.inventory), "--list", *vault],
            capture_output=True, text=True, check=False, timeout=120,
        )  # fmt: skip
    try:
        found = json.loads(done.stdout)["_meta"]["hostvars"]
    except (ValueError, KeyError, TypeError):
        raise InvalidError(
            f"{connection.inventory}: ansible-inventory cannot read it",
            details="\n".join(done.stderr.strip().splitlines()[-6:]),
            hint=f"see it by itself: ansible-inventory -i {connection.inventory} --list",
        ) from None
    return {str(name): dict(values) for name, values in found.items() if is_mapping(values)}


def inventory_data(
    groups: Mapping[str, Sequence[str]],
    given: Mapping[str, Mapping[str, Any]],
    reach: Mapping[str, Mapping[str, str]],
    site: Path,
    subnet: str,
) -> tuple[dict[str, Any], list[Substitute]]:
    """Return the inventory as Ansible's YAML has it, and what of its settings is a substitute.

    `groups` is host → its groups, in the inventory's order; `given` its variables on site; `reach` how Ansible reaches
    it in the lab. The site's settings stay but for what can only be true on site.
    """
    hosts: dict[str, Any] = {}
    changed: dict[tuple[str, str], Substitute] = {}
    for name in groups:
        mine = {key: value for key, value in given.get(name, {}).items() if not key.startswith("ansible_")}
        settings = dict(mine.get(PREFIX) or {})
        settings, sources = _from_bundle(settings, site)
        settings, addresses = _addresses(settings, subnet)
        substitutes = [*sources, *addresses]
        changed |= {(one.what, one.on_site): one for one in substitutes}
        hosts[name] = {**mine, **reach[name], PREFIX: settings}
    children: dict[str, dict[str, dict[str, None]]] = {}
    for name, members in groups.items():
        for group in members:
            children.setdefault(group, {"hosts": {}})["hosts"][name] = None
    return {"all": {"hosts": hosts, "children": children}}, list(changed.values())


def _from_bundle(settings: dict[str, Any], site: Path) -> tuple[dict[str, Any], list[Substitute]]:
    """Name the folders that the bundle filled, and nothing else that images and packages could come from."""
    here = {key: folder for key, folder in FOLDERS.items() if (site / folder).is_dir()}
    replaced = [key for key, folder in INSTEAD.items() if settings.get(key) and folder in here.values()]
    left = {key: value for key, value in settings.items() if key not in {*FOLDERS, *replaced}}
    # Not where it is: a mirror's address may hold a password, and the proof is for everybody.
    return {**left, **here}, [Substitute(key, "the site's", "the bundle's") for key in replaced]


def _addresses(settings: dict[str, Any], subnet: str) -> tuple[dict[str, Any], list[Substitute]]:
    """Replace the shared address, which only the site's network has."""
    gateway = settings.get("gateway")
    if not is_mapping(gateway) or not gateway.get("address"):
        return settings, []
    here = network.address(subnet, SHARED - network.FIRST_HOST + 1)
    left = {key: value for key, value in gateway.items() if key not in {"address", "interface"}}
    substitute = Substitute("gateway.address", str(gateway["address"]), here)
    return {**settings, "gateway": {**left, "address": here}}, [substitute]


def write(data: Mapping[str, Any], site: Path) -> Path:
    """Write the inventory into the site's folder, and return where it is."""
    path = site / FILE
    path.write_text(yaml.safe_dump(data, sort_keys=False, allow_unicode=True), "utf-8")
    return path
