"""The site's settings without its hosts: out of the inventory, or out of a file."""

from collections.abc import Mapping
from pathlib import Path

from onprem_llm.connection import Connection
from onprem_llm.errors import InvalidError
from onprem_llm.json_values import is_mapping
from onprem_llm.output import Progress
from onprem_llm.probe_values import mapping
from onprem_llm.runner import raise_for_failures, run
from onprem_llm.spec.documents import read_document
from onprem_llm.spec.site import PREFIX, Site, parse_site

# What changes which files are rendered. The rest says where images and packages come from, on the site.
RENDERED = {"data_root", "weights_dir", "docker", "open_webui", "gateway", "public_port", "ray", "registry_image"}


def site_of_inventory(connection: Connection, progress: Progress) -> Site:
    """Read the settings that an inventory gives to its hosts; none of them is reached."""
    result = run("site.yml", connection, progress=progress, title="Reading the site's settings")
    raise_for_failures(result, doing="reading onprem_llm_site (no host was reached)")
    found = {host: mapping(result.returned.get(host, {}).get("site")) for host in result.hosts}
    first, *others = found
    other = next((host for host in others if found[host] != found[first]), None)
    if other is not None:
        raise InvalidError(
            f"{PREFIX} is not the same on {first} and {other}",
            hint="these are the whole site's settings: put them in group_vars/all.yml only",
        )
    return parse_site(found[first], str(connection.inventory))


def site_of_file(path: Path) -> Site:
    """Read the settings out of a file: a group_vars file with `onprem_llm_site` in it, or the mapping alone."""
    value = read_document(path).value
    inner = value.get(PREFIX, value)
    if not is_mapping(inner):
        raise InvalidError(f"{path}: {PREFIX}: expected a mapping", hint="docs/site.md has all settings")
    return parse_site(inner, str(path))


def rendered_settings(site: Site) -> Mapping[str, object]:
    """Return the settings, as they were given, that a lock has. Secrets are none of them: they are references."""
    return site.model_dump(mode="json", include=RENDERED, exclude_unset=True)
