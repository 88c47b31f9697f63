"""What the user's own ssh configuration comes to, by ssh's own account: names, keys, known_hosts files, jump hosts."""

import subprocess
from collections.abc import Iterator

from onprem_llm.errors import InvalidError
from onprem_llm.ssh import Route


def settings(route: Route) -> list[tuple[str, str]]:
    """Return lower-case option names with their values, in order; a name can come more than once.

    Raises InvalidError where ssh does not take the options that the inventory gives.
    """
    shown = subprocess.run(["ssh", "-G", *route.arguments], capture_output=True, text=True, timeout=10, check=False)
    if shown.returncode:
        raise InvalidError(
            f"{route.host}: ssh does not take the options that the inventory gives it", details=shown.stderr.strip()
        )
    parts = [line.partition(" ") for line in shown.stdout.splitlines()]
    return [(name, value) for name, _, value in parts]


def setting(route: Route, name: str, default: str = "") -> str:
    """Return the value of one option."""
    return next((value for its, value in settings(route) if its == name), default)


def jumps(route: Route) -> list[Route]:
    """Return the jump hosts on the way, first to last. ssh enters them by its configuration alone; so do these."""
    listed = setting(route, "proxyjump", "none")
    if listed == "none":
        return []
    urls = [jump if jump.startswith("ssh://") else f"ssh://{jump}" for jump in listed.split(",")]
    return [
        Route(url.removeprefix("ssh://"), False, url, None, None, None, tuple(_configuration(route))) for url in urls
    ]


def _configuration(route: Route) -> Iterator[str]:
    """Yield `-F FILE`, which ssh hands on to the ssh of a jump host."""
    words = list(route.options)
    for index, word in enumerate(words):
        if word == "-F" and index + 1 < len(words):
            yield from words[index : index + 2]
        elif word.startswith("-F") and word != "-F":
            yield word
