"""Where this machine keeps what can be made again."""

import os
from pathlib import Path


def cache_folder() -> Path:
    """Return ONPREM_LLM_CACHE, or the XDG cache folder's onprem-llm."""
    named = os.environ.get("ONPREM_LLM_CACHE")
    if named:
        return Path(named)
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "onprem-llm"
