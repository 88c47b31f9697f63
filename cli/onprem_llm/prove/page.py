"""The page, as a browser asks for it."""

import urllib.request
from http.client import HTTPException

from onprem_llm.errors import OnpremError

PAGE_S = 60


def fetch(url: str) -> tuple[str, int]:
    """Return the title and the size of a page; OnpremError where it is none."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=PAGE_S) as answer:
            data = answer.read()
    except (OSError, HTTPException) as error:
        raise OnpremError(f"{url}: {error!r}") from None
    title = data.decode("utf-8", "replace").partition("<title>")[2].partition("</title>")[0].strip()
    if not title:
        raise OnpremError(f"{url}: no page with a title came, but {data[:60]!r}")
    return title, len(data)
