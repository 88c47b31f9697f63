"""The values that `from_env` and `from_file` refer to (in memory, in no plan), and what tells that one changed."""

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path

from onprem_llm.errors import InvalidError

References = Mapping[str, Mapping[str, str]]


def read_values(references: References, where: str) -> dict[str, str]:
    """Return name -> value; InvalidError names the variable or the file that is missing, never a value."""
    return {name: _read(name, reference, where) for name, reference in references.items()}


def _read(name: str, reference: Mapping[str, str], where: str) -> str:
    if "from_env" in reference:
        variable = reference["from_env"]
        value = os.environ.get(variable)
        if not value:
            raise InvalidError(
                f"{where}: env.{name}: the environment variable {variable} is not set",
                hint=f"export {variable}=… and run the command again",
            )
        return value
    path = Path(reference["from_file"])
    try:
        value = path.read_text(encoding="utf-8").rstrip("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidError(f"{where}: env.{name}: {path} cannot be read: {error}", hint="mend the path") from None
    if not value:
        raise InvalidError(f"{where}: env.{name}: {path} is empty", hint="write the secret into it")
    return value


def fingerprint(salt: str, value: str) -> str:
    """Return what the probe returns for a secret; each part of a list of keys (a;b) on its own."""
    return ";".join(hashlib.sha256((salt + part).encode()).hexdigest()[:16] for part in value.split(";"))
