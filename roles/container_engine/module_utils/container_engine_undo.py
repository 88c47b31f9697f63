"""What `uninstall` decides: which packages go, what daemon.json becomes, which rules were docker's. Pure."""

from __future__ import annotations

import json
import re
from typing import Any

from ansible.module_utils.container_engine_settings import Settings, SettingsError, parse, text_of

ENGINES = ("docker.io", "docker-ce")
# Of the packages that are held, those that leave nothing in the kernel.
TOOLKIT = re.compile(r"^(lib)?nvidia-container")
DOCKER_CHAIN = re.compile(r"^DOCKER(-[A-Z0-9-]+)?$")
DOCKER_RULE = re.compile(r"(^| )(docker0|br-[0-9a-f]{12})( |$)|-[jg] DOCKER(-[A-Z0-9-]+)?( |$)")


def settings_after(current: str, daemon: dict[str, Any]) -> str | None:
    """Return daemon.json's text without what is ours; None where the file goes. What others changed since stays.

    Raises SettingsError for a file that is no JSON object.
    """
    settings, before = parse(current), parse(daemon.get("before") or "")
    for key, ours in daemon.get("ours", {}).items():
        settings = _without(settings, key, ours, before)
    if settings == before:
        return daemon.get("before")
    return text_of(settings)


def _without(settings: Settings, key: str, ours: Any, before: Settings) -> Settings:
    """Return the settings with `key` as it was, where it still is as we wrote it; a person's value stays."""
    if settings.get(key) != ours:
        return settings
    if key in before:
        return {**settings, key: before[key]}
    return {name: value for name, value in settings.items() if name != key}


def still_needed(simulated: str, going: list[str]) -> list[str]:
    """Return what `apt-get --simulate remove` would take along beside `going`."""
    names = {name.partition(":")[0] for name in going}
    found = re.findall(r"^(?:Remv|Purg) (\S+)", simulated, re.MULTILINE)
    return sorted(name for name in found if name.partition(":")[0] not in names)


def docker_rules(listing: str) -> tuple[list[str], list[str]]:
    """Return (rules to delete, chains to remove) of docker's in `iptables -S`; rules as arguments after `-D`."""
    rules, chains = [], []
    for line in listing.splitlines():
        kind, _, rest = line.partition(" ")
        name = rest.split(" ")[0]
        if kind == "-N" and DOCKER_CHAIN.match(name):
            chains.append(name)
        elif kind == "-A" and not DOCKER_CHAIN.match(name) and DOCKER_RULE.search(rest):
            rules.append(rest)
    return rules, chains


def empty_objects(ruleset: str, known: list[str]) -> tuple[list[tuple[str, str, str]], list[tuple[str, str]]]:
    """Return (base chains without a rule, tables that have nothing else) of `nft --json list ruleset`.

    Tables in `known` (as `ip nat`) were there before docker, and are left as they are.
    """
    objects = json.loads(ruleset).get("nftables", []) if ruleset.strip() else []
    tables = [(one["table"]["family"], one["table"]["name"]) for one in objects if "table" in one]
    chains = [one["chain"] for one in objects if "chain" in one]
    used = {(one["rule"]["family"], one["rule"]["table"], one["rule"]["chain"]) for one in objects if "rule" in one}
    bare = [
        (chain["family"], chain["table"], chain["name"])
        for chain in chains
        if (chain["family"], chain["table"], chain["name"]) not in used
        and chain.get("policy", "accept") == "accept"
        and f"{chain['family']} {chain['table']}" not in known
    ]
    full = {(chain["family"], chain["table"]) for chain in chains if _key(chain) not in bare}
    other = {(v["family"], v["table"]) for one in objects for k, v in one.items() if k in ("set", "map", "flowtable")}
    gone = [one for one in tables if one not in full and one not in other and " ".join(one) not in known]
    return bare, gone


def _key(chain: dict[str, Any]) -> tuple[str, str, str]:
    return chain["family"], chain["table"], chain["name"]


__all__ = ["SettingsError", "docker_rules", "empty_objects", "settings_after", "still_needed"]
