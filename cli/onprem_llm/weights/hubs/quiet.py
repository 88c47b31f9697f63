"""Client packages like to write to the home folder and to tell where they run; here they do neither."""

import logging
import os
from pathlib import Path
from urllib.parse import urlsplit

from onprem_llm.errors import InvalidError

# Read by the packages when they are imported, so this must come before.
_SETTINGS = {
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_UPDATE_CHECK": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_HUB_VERBOSITY": "error",
    "DO_NOT_TRACK": "1",
    # A number for modelscope; modelscope_hub reads a name from the same variable, and is told by its logger.
    "MODELSCOPE_LOG_LEVEL": "40",
    # Retrying is our own work: it shows, and it can be stopped.
    "MODELSCOPE_API_MAX_RETRIES": "1",
    "MODELSCOPE_REPO_TREE_PAGE_MAX_ATTEMPTS": "1",
    # Seconds without a byte.
    "MODELSCOPE_DOWNLOAD_TIMEOUT": "30",
    "MODELSCOPE_API_TIMEOUT": "30",
}
_FOLDERS = {
    "HF_HOME": "huggingface",
    "HF_XET_CACHE": "huggingface/xet",
    "MODELSCOPE_HOME": "modelscope",
    "MODELSCOPE_CACHE": "modelscope/cache",
}


def quiet(clients: Path) -> None:
    """Set the environment in which the client packages keep to `clients` and call nobody but the hub.

    A token that somebody stored by `hf auth login` still counts: its file is named before the folder moves.
    """
    if "HF_TOKEN_PATH" not in os.environ:
        base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        home = os.environ.get("HF_HOME") or Path(base) / "huggingface"
        os.environ["HF_TOKEN_PATH"] = str(Path(home).expanduser() / "token")
    os.environ.update(_SETTINGS)
    os.environ.update({name: str(clients / folder) for name, folder in _FOLDERS.items()})


def silence(logger: str) -> None:
    """Leave a client's warnings out: what matters of them becomes an error of ours."""
    logging.getLogger(logger).setLevel(logging.ERROR)


def endpoint(variables: tuple[str, ...], default: str) -> tuple[str, str]:
    """Return the address of a hub and how it may be shown: a mirror's may hold a name and a password.

    InvalidError names the variable whose address is none.
    """
    variable = next((name for name in variables if os.environ.get(name)), "")
    value = os.environ.get(variable, default)
    address = value if "://" in value else f"https://{value}"
    if not _is_address(address) or not value.isprintable() or " " in value:
        raise InvalidError(
            f"{variable}: found {value.rpartition('@')[2]!r}, expected an address such as {default}",
            hint=f"mend the variable {variable}, or unset it",
        )
    address = address.rstrip("/")
    scheme, _, rest = address.partition("://")
    return address, f"{scheme}://{rest.rpartition('@')[2]}"


def _is_address(text: str) -> bool:
    try:
        parts = urlsplit(text)
        return parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:  # A bracket without its other one, a port that is no number.
        return False
