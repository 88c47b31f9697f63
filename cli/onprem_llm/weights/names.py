"""Names of files that come from elsewhere: which may be written below our folder."""

import unicodedata
from collections.abc import Sequence
from pathlib import PurePosixPath

LONGEST_NAME = 255
LONGEST_PATH = 1024
PARTIAL = ".partial"  # what a file is called, behind its name, while it is written: here, and on hosts


def name_problem(path: str) -> str | None:
    """Say why a path from a hub or a manifest must not be written; None for a good one."""
    if not path or len(path.encode("utf-8", "replace")) > LONGEST_PATH:
        return "empty or too long"
    if any(unicodedata.category(letter).startswith("C") for letter in path):
        return "has control characters"
    if "\\" in path:
        return "has a backslash"
    if path.startswith("/"):
        return "is absolute"
    parts = path.split("/")
    if any(part in {"", ".", ".."} for part in parts):
        return "leaves the folder, or names it twice"
    if any(len(part.encode()) > LONGEST_NAME for part in parts):
        return "has a name of more than 255 bytes"
    return None


def name_problems(paths: Sequence[str]) -> list[str]:
    """Return a line for each path that must not be written, also where one is another's folder, or where it grows."""
    problems = [f"{path!r} {why}" for path in paths if (why := name_problem(path))]
    if problems:
        return problems
    known = set(paths)
    doubled = [f"{path!r} stands twice" for path in sorted(known) if paths.count(path) > 1] if len(known) < len(
        paths) else []  # fmt: skip
    inside = [
        f"{path!r} is a file and a folder"
        for path in sorted({str(folder) for path in paths for folder in PurePosixPath(path).parents} & known)
    ]
    used = known | {str(folder) for path in paths for folder in PurePosixPath(path).parents}
    growing = [f"{path + PARTIAL!r} is where {path!r} grows" for path in sorted(known) if path + PARTIAL in used]
    return doubled + inside + growing
