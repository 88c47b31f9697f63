"""Files that only we can read, in a folder that is gone afterwards: how secrets reach ansible and ssh."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from onprem_llm.connection import Connection


@contextmanager
def private_folder() -> Iterator[Path]:
    """Give a fresh 0700 folder and remove it afterwards, in memory where the session has such a place."""
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    parent = runtime if runtime and os.access(runtime, os.W_OK) else None
    path = Path(tempfile.mkdtemp(prefix="onprem-llm-", dir=parent))
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def write_private(path: Path, text: str, mode: int = 0o600) -> Path:
    """Write a file that only we can read, from its first byte on."""
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "w", encoding="utf-8") as file:
        file.write(text)
    return path


def password_arguments(connection: Connection, private: Path) -> list[str]:
    """Return the options by which ansible-playbook reads what a person typed, from files in `private`."""
    words: list[str] = []
    for option, value in (
        ("--become-password-file", connection.become_password),
        ("--connection-password-file", connection.ssh_password),
        ("--vault-password-file", connection.vault_password),
    ):
        if value is not None:
            words += [option, str(write_private(private / option.strip("-"), value + "\n"))]
    for path in connection.vault_password_files:
        words += ["--vault-password-file", str(path)]
    if connection.private_key:
        words += ["--private-key", str(connection.private_key)]
    return words


@contextmanager
def askpass(secret: str, *, once: bool = False) -> Iterator[dict[str, str]]:
    """Give an environment in which ssh and ssh-add get `secret` where they would ask a person.

    `once`: a second question gets no answer. ssh-add asks for ever until a passphrase fits.
    """
    with private_folder() as folder:
        answer = write_private(folder / "answer", secret + "\n")
        after = f' && rm "{answer}"' if once else ""
        helper = write_private(folder / "askpass", f'#!/bin/sh\ncat "{answer}"{after}\n', 0o700)
        yield {"SSH_ASKPASS": str(helper), "SSH_ASKPASS_REQUIRE": "force", "DISPLAY": os.environ.get("DISPLAY", ":")}
