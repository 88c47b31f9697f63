# SPDX-License-Identifier: Apache-2.0
"""Sources of apt and dnf on a host. A mirror's account stands where root alone reads it, and in no address.

Everybody may read what apt and dnf have as sources, their logs, and what they say of an address.
"""

from __future__ import annotations

import re
import urllib.parse
from pathlib import Path
from typing import Iterable, NamedTuple

from ansible.module_utils.onprem_llm_apt_get import PackageError
from ansible.module_utils.onprem_llm_write import put

ADDRESS = re.compile(r"(https?://)(?:([^/\s]*)@)?(\S+)")
# apt compares the addresses that it asks for with these as they stand, and has its own spelling of other characters.
FOLDERS = re.compile(r"[A-Za-z0-9._/-]*/")

ENTRY = re.compile(r"^# (\S+)\n(machine .*\n)", re.MULTILINE)

SOURCES = ("apt/sources.list.d/onprem-llm*.sources", "yum.repos.d/onprem-llm*.repo")
ETC = Path("/etc")


class Account(NamedTuple):
    """Who signs in at a mirror, and below which address, which has no account in it."""

    address: str
    user: str
    password: str

    @property
    def line(self) -> str:
        """The line of apt_auth.conf. It counts for the whole folder, and for no other that begins alike."""
        parts = urllib.parse.urlsplit(self.address)
        folders = FOLDERS.match(parts.path.rstrip("/") + "/")
        below = folders.group() if folders else "/"
        password = f" password {self.password}" if self.password else ""
        return f"machine {parts.scheme}://{parts.netloc}{below} login {self.user}{password}\n"


def split(address: str) -> tuple[str, Account | None]:
    """Return an address without its account, and that where it has one. PackageError for one that no file can hold."""
    found = ADDRESS.fullmatch(address)
    if found is None or found.group(2) is None:
        return address, None
    bare = f"{found.group(1)}{found.group(3)}"
    user, _, password = (urllib.parse.unquote(part) for part in found.group(2).partition(":"))
    if not user or any(character.isspace() for character in user + password):
        raise PackageError(
            f"found an account {'with a blank' if user else 'without a name'} in the address of the mirror {bare}, "
            "expected NAME:PASSWORD without blanks, which apt could not read. Give the mirror another account"
        )
    return bare, Account(bare, user, password)


def write_apt(path: Path, text: str) -> bool:
    """Write a source of apt's, and its mirrors' accounts where all of ours are; return whether either changed.

    PackageError for an account that no file can hold.
    """
    accounts: list[Account] = []

    def bare(found: re.Match[str]) -> str:
        address, account = split(found.group())
        accounts.extend([account] if account else [])
        return address

    text = ADDRESS.sub(bare, text)
    auth = auth_of(path)
    before = auth.read_text(encoding="utf-8") if auth.exists() else ""
    changed = _write(auth, netrc(before, path.name, accounts), 0o600)
    return _write(path, text, 0o644) or changed


def auth_of(path: Path) -> Path:
    """Return where the accounts of our sources are, as apt_auth.conf(5) says: in the folder beside that of sources.

    Of all files there apt takes the first line that fits: ours is one, and its name comes before those of the host.
    """
    return path.parent.parent / "auth.conf.d" / "00-onprem-llm.conf"


def apt_files(path: Path) -> list[str]:
    """Return what `write_apt` may write for a source, to be noted for uninstall."""
    return [str(path), str(auth_of(path))]


def netrc(before: str, source: str, accounts: Iterable[Account]) -> str:
    """Return the text of our apt_auth.conf with these accounts for a source's file, and the others' as they were.

    Above each line stands whose it is. The first line that fits counts, so that inner folders come first.
    """
    entries = {one for one in ENTRY.findall(before) if one[0] != source} | {(source, one.line) for one in accounts}
    ordered = sorted(entries, key=lambda entry: (-len(entry[1].split()[1]), entry))
    return "".join(f"# {name}\n{line}" for name, line in ordered)


def write_dnf(path: Path, text: str) -> bool:
    """Write a .repo file, root's alone where its mirror has an account; return whether it changed. PackageError."""
    found = re.search(r"^baseurl=(.*)$", text, re.MULTILINE)
    address, account = split(found.group(1)) if found else ("", None)
    if found is None or account is None:
        return _write(path, text, 0o644)
    if re.search(r"\$[{\w]", account.user + account.password):
        raise PackageError(
            f"found a $ before a letter in the account of the mirror {address}, expected none: dnf could read it as "
            "one of its variables. Give the mirror another account"
        )
    words = f"baseurl={address}\nusername={account.user}\npassword={account.password}"
    return _write(path, text.replace(found.group(), words), 0o600)


def with_accounts() -> list[Path]:
    """Return those of our sources in which an address has an account: earlier versions wrote them so."""
    found = sorted(path for pattern in SOURCES for path in ETC.glob(pattern) if path.is_file())
    return [path for path in found if any(account for _, account, _ in ADDRESS.findall(path.read_text("utf-8")))]


def _write(path: Path, text: str, mode: int) -> bool:
    """Write a file, or take it away where it would be empty; return whether it was another one."""
    before = path.read_text(encoding="utf-8") if path.exists() else ""
    if text == before:
        return False
    if text:
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        put(path, text, mode)
    else:
        path.unlink()
    return True
