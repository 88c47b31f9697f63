"""The inventory of the rehearsal: the site's hosts, groups and settings, with the lab's addresses and keys."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from onprem_llm.errors import InvalidError
from onprem_llm.json_values import is_mapping
from onprem_llm.lab import network
from onprem_llm.private_files import write_private
from onprem_llm.prove.cluster import elsewhere
from onprem_llm.prove.likeness import Substitute
from onprem_llm.prove.site_variables import Dumper, Tagged
from onprem_llm.spec.site import PREFIX

FILE = "inventory.yml"
# What a loaded site has, and the setting that names it; and where the site has the same from instead. What is rehearsed
# comes from the bundle alone.
FOLDERS = {"packages_dir": "packages", "registry_dir": "registry", "images_dir": "images"}
INSTEAD = {"registry": "registry", "package_mirrors": "packages"}
# The number of the shared address in the lab's network; hosts are numbered from network.FIRST_HOST on.
SHARED = 200


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
        settings, sources = _from_bundle(_settings(name, mine), site)
        settings, addresses = _addresses(settings, subnet)
        settings, clusters = _without_cluster(settings)
        substitutes = [*sources, *addresses, *clusters]
        changed |= {(one.what, one.on_site): one for one in substitutes}
        hosts[name] = {**mine, **reach[name], PREFIX: settings}
    children: dict[str, dict[str, dict[str, None]]] = {}
    for name, members in groups.items():
        for group in members:
            children.setdefault(group, {"hosts": {}})["hosts"][name] = None
    return {"all": {"hosts": hosts, "children": children}}, list(changed.values())


def _settings(host: str, variables: Mapping[str, Any]) -> dict[str, Any]:
    settings = variables.get(PREFIX) or {}
    if not is_mapping(settings):
        raise InvalidError(
            f"{PREFIX} of host {host}: found a text (a template, or a whole mapping in a vault), expected the mapping "
            "itself: a rehearsal changes what in it is true on site alone",
            hint="write the keys out; templates and vaults may be their values",
        )
    return dict(settings)


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
    on_site = "the site's" if isinstance(gateway["address"], Tagged) else str(gateway["address"])
    substitute = Substitute("gateway.address", on_site, here)
    return {**settings, "gateway": {**left, "address": here}}, [substitute]


def _without_cluster(settings: dict[str, Any]) -> tuple[dict[str, Any], list[Substitute]]:
    """Leave out a Ray cluster that somebody else runs: nothing of it is in the bundle, and nobody here may reach it."""
    if not elsewhere(settings):
        return settings, []
    left = {key: value for key, value in settings.items() if key != "ray"}
    return left, [Substitute("ray.address", "the site's", "none: the cluster there is not rehearsed")]


def write(data: Mapping[str, Any], site: Path) -> Path:
    """Write the inventory into the site's folder, for us alone, and return where it is."""
    path = site / FILE
    path.unlink(missing_ok=True)
    return write_private(path, yaml.dump(data, Dumper=Dumper, sort_keys=False, allow_unicode=True))
