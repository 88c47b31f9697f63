# SPDX-License-Identifier: Apache-2.0
"""The key of a package repository on a host: taken for its fingerprint, whether it is fetched or there already."""

from __future__ import annotations

import base64
import configparser
import contextlib
import http.client
import re
import tempfile
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Collection, NamedTuple

from ansible.module_utils.onprem_llm_apt_get import PackageError, complaints
from ansible.module_utils.onprem_llm_command import run
from ansible.module_utils.onprem_llm_openpgp import fingerprints
from ansible.module_utils.onprem_llm_package_source import split
from ansible.module_utils.onprem_llm_write import put

APT_HELPER = Path("/usr/lib/apt/apt-helper")
APT_AUTH = Path("/etc/apt/auth.conf")
DNF_CONF = Path("/etc/dnf/dnf.conf")
LARGEST = 1 << 20  # bytes of a file of keys; more is something else
TIMEOUT_S = 60


class Key(NamedTuple):
    """Where a repository's key is fetched, where the host keeps it, and who it has to be."""

    address: str
    path: Path
    whose: str  # for errors, such as "docker's repository"
    known: Collection[str]  # fingerprints; each key of the file must have one, since apt and dnf trust them all
    variable: str  # of the role, that has them

    @property
    def own(self) -> str:
        """Say what a site does that signs these packages itself."""
        return (
            "A site that signs this mirror's packages itself names the fingerprint of its key in group_vars: "
            f"{self.variable}"
        )


def present(key: Key, into: Path | None = None) -> Path:
    """Return the file of a repository's key, which is fetched where the host has none. PackageError.

    `into`: where it goes when nothing on the host is to change.
    """
    if key.path.exists():
        _check(key, key.path.read_bytes(), str(key.path), "Remove that file, and the key is fetched anew.")
        return key.path
    data = _fetched(key)
    _check(key, data, _shown(key.address), "Correct the mirror.")
    target = into or key.path
    _folder(target.parent)
    put(target, data, 0o644)
    return target


def _check(key: Key, data: bytes, place: str, remedy: str) -> None:
    found = fingerprints(data)
    if not found or not set(found) <= {one.replace(" ", "").upper() for one in key.known}:
        said = f"the key{'s' if len(found) > 1 else ''} {' and '.join(found) or '(none that can be read)'}"
        raise PackageError(
            f"found {said} at {place}, expected {' or '.join(key.known)} of {key.whose} alone: whoever holds another "
            f"key could install anything. {remedy} {key.own}"
        )


def _folder(path: Path) -> None:
    """Make a folder that apt's own user may look into, whatever the umask is."""
    if not path.is_dir():
        _folder(path.parent)
        path.mkdir()
        path.chmod(0o755)


def _fetched(key: Key) -> bytes:
    """Return what the mirror has, whichever way it comes: who it is says the fingerprint. PackageError."""
    by_apt = key.address.startswith(("http://", "https://")) and APT_HELPER.exists()
    data, said = _by_apt(key.address) if by_apt else _by_python(key.address)
    if data is None:
        raise PackageError(
            f"found no key at {_shown(key.address)}, expected that of {key.whose}: {_shown(said)}\n"
            f"Put the key of {key.whose} at {key.path} on the host (mode 0644), then run bootstrap again."
        )
    return data


def _by_apt(address: str) -> tuple[bytes | None, str]:
    """Fetch with apt's own downloader, which knows apt's proxies and passwords; else return what apt said."""
    bare, account = split(address)
    with tempfile.TemporaryDirectory(prefix="onprem-llm-key-") as folder:
        new = Path(folder) / "key"
        # As root: apt's own user may not look into this folder.
        argv = [str(APT_HELPER), "-o", "APT::Sandbox::User=root"]
        if account:
            # Everybody on the host can read what is in an argv. The host's own file, whose place this one takes, may
            # have the account of apt's proxy.
            netrc, own = Path(folder) / "netrc", APT_AUTH.read_bytes() if APT_AUTH.exists() else b""
            folder_of_key = account._replace(address=bare.rpartition("/")[0])
            put(netrc, folder_of_key.line.encode() + own, 0o600)
            argv += ["-o", f"Dir::Etc::netrc={netrc}"]
        code, text = run([*argv, "download-file", bare, str(new)], TIMEOUT_S)
        if code == 0:
            return new.read_bytes()[:LARGEST], ""
        return None, f"apt says\n{complaints(text) or text[-600:]}"


def _by_python(address: str) -> tuple[bytes | None, str]:
    """Fetch where there is no apt, by the proxy that dnf has where it has one; a mirror may be a folder."""
    bare, account = split(address)
    proxy = _proxy_of_dnf()
    handlers = [urllib.request.ProxyHandler({"http": proxy, "https": proxy})] if proxy else []
    try:
        request = urllib.request.Request(bare)  # noqa: S310 - as above
        if account:
            basic = base64.b64encode(f"{account.user}:{account.password}".encode()).decode()
            request.add_unredirected_header("Authorization", f"Basic {basic}")
        with urllib.request.build_opener(*handlers).open(request, timeout=TIMEOUT_S) as answer:
            return answer.read(LARGEST), ""
    except (OSError, ValueError, http.client.HTTPException) as error:
        return None, str(error)


def _proxy_of_dnf() -> str:
    """Return the proxy of dnf's own configuration, with its account; empty where it names none."""
    conf = configparser.ConfigParser(interpolation=None, strict=False)
    with contextlib.suppress(OSError, configparser.Error, UnicodeDecodeError):
        conf.read_string(DNF_CONF.read_text(encoding="utf-8"))
    proxy = conf.get("main", "proxy", fallback="").strip()
    user = conf.get("main", "proxy_username", fallback="").strip()
    if not proxy or proxy == "_none_" or not user:
        return "" if proxy == "_none_" else proxy
    account = ":".join(
        urllib.parse.quote(one, safe="") for one in (user, conf.get("main", "proxy_password", fallback=""))
    )
    return proxy.replace("://", f"://{account}@", 1)


def _shown(text: str) -> str:
    """Return addresses, also amid what apt says, as errors show them: without an account."""
    return re.sub(r"://[^/@\s]*@", "://", text)
