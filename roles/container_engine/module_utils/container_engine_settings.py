"""daemon.json as a value: merge what we need into what a person wrote. Pure."""

from __future__ import annotations

import json
from typing import Any, Dict

Settings = Dict[str, Any]
# What the engine takes over on SIGHUP, of what we write; logs, pools, features and proxies want a restart.
RELOADABLE = frozenset({"live-restore", "runtimes"})
# Other drivers refuse max-size and max-file, and the engine would not start.
ROTATING_DRIVERS = ("json-file", "local")


class SettingsError(Exception):
    """daemon.json is not what docker reads; the message says where."""


def parse(text: str) -> Settings:
    """Return the settings in `text`, empty for an empty file. SettingsError when it is no JSON object."""
    if not text.strip():
        return {}
    try:
        settings = json.loads(text)
    except ValueError as error:
        raise SettingsError(f"it is not JSON: {error}") from error
    if not isinstance(settings, dict):
        raise SettingsError(f"it holds {json.dumps(settings)[:60]}, not a mapping")
    return settings


def text_of(settings: Settings) -> str:
    """Return the file's text; the order of a person's keys is kept."""
    return json.dumps(settings, indent=2, ensure_ascii=False) + "\n"


def merged(existing: Settings, enforced: Settings, defaults: Settings) -> Settings:
    """Return `existing` with `enforced` over it and `defaults` under it; every other key stays as it is."""
    wanted = dict(defaults)
    if existing.get("log-driver", ROTATING_DRIVERS[0]) not in ROTATING_DRIVERS:
        wanted.pop("log-opts", None)
    return _forced(_filled(existing, wanted), enforced)


def asked_settings(address_pools: list[Settings] | None, proxy: Settings | None) -> Settings:
    """Return the settings for what a site says about pools and its proxy.

    The proxy stands here and not in a systemd drop-in: that would want a `systemctl daemon-reload`, which can take
    running containers their GPUs.
    """
    settings: Settings = {}
    if address_pools:
        settings["default-address-pools"] = [
            {"base": pool["base"], "size": int(pool["size"])} for pool in address_pools
        ]
    if proxy:
        named = {
            "http-proxy": proxy.get("http"),
            "https-proxy": proxy.get("https"),
            "no-proxy": ",".join(proxy.get("no_proxy") or []),
        }
        settings["proxies"] = {name: value for name, value in named.items() if value}
    return settings


def holds_password(settings: Settings) -> bool:
    """Say whether a proxy's address has a user in it."""
    proxies = settings.get("proxies")
    return isinstance(proxies, dict) and any("@" in str(value) for value in proxies.values())


def changed_keys(before: Settings, after: Settings) -> frozenset[str]:
    """Return the top-level keys whose values differ."""
    return frozenset(key for key in before.keys() | after.keys() if before.get(key) != after.get(key))


def _filled(settings: Settings, defaults: Settings) -> Settings:
    """Return the settings with what is missing in them, inside mappings too."""
    result = dict(settings)
    for key, value in defaults.items():
        old = result.setdefault(key, value)
        if isinstance(old, dict) and isinstance(value, dict):
            result[key] = _filled(old, value)
    return result


def _forced(settings: Settings, enforced: Settings) -> Settings:
    """Return the settings with others over them; mappings are merged, anything else is replaced."""
    result = dict(settings)
    for key, value in enforced.items():
        old = result.get(key)
        result[key] = _forced(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return result
