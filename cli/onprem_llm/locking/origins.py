"""How the bytes of a lock were had, for whoever needs them again: CACHE/locking/<sha256 of the lock>.json.

Nothing of it is in the lock, which must not depend on where this machine keeps things.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from onprem_llm.caches import cache_folder
from onprem_llm.locking.registry_images import RegistryAccess
from onprem_llm.probe_values import mapping, text, text_map
from onprem_llm.spec.lock import Lock
from onprem_llm.whole_files import write_whole


@dataclass(frozen=True, slots=True)
class Origins:
    """Registries and mirrors as they were reached, archives of images and folders of weights by their names."""

    registry: str | None = None
    authfile: str | None = None
    ca_file: str | None = None
    mirrors: Mapping[str, str] = field(default_factory=dict)
    archives: Mapping[str, str] = field(default_factory=dict)  # ref -> file
    weights: Mapping[str, str] = field(default_factory=dict)  # weights' name -> folder
    keys: Mapping[str, str] = field(default_factory=dict)  # mirror's name -> file of its keys

    @property
    def access(self) -> RegistryAccess:
        """How registries are reached."""
        authfile, ca_file = (Path(name) if name else None for name in (self.authfile, self.ca_file))
        return RegistryAccess(self.registry, authfile, ca_file)

    def remember(self, lock: Lock) -> None:
        """Write it down for a lock."""
        path = _path(lock)
        path.parent.mkdir(parents=True, exist_ok=True)
        # Where the bytes of a site come from is nobody else's matter.
        path.parent.chmod(0o700)
        write_whole(path, json.dumps(asdict(self), sort_keys=True).encode())


def origins_of(lock: Lock) -> Origins:
    """Return how a lock's bytes were had on this machine; the plain way where it was made elsewhere."""
    try:
        raw = mapping(json.loads(_path(lock).read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return Origins()
    maps = [text_map(raw.get(name)) for name in ("mirrors", "archives", "weights", "keys")]
    return Origins(text(raw, "registry"), text(raw, "authfile"), text(raw, "ca_file"), *maps)


def _path(lock: Lock) -> Path:
    return cache_folder() / "locking" / f"{hashlib.sha256(lock.data).hexdigest()}.json"
